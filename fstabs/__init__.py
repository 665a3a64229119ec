"""Mount lists, rendered to fstab(5) lines: `<name>.fstab.j2`. Data only."""
