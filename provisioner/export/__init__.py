"""A container → what other engines start.

image       what is to be shipped, as values
view        its layers as entries: each layer alone, or all of them as an overlay shows them
archive     entries → one deterministic tar stream
compress    a stream → gzip or zstd, its digests and its size
pour        where the archive is written: here, or as a normal user in a sandbox
output      the file or folder that comes of it, whole or not at all
flat        all layers as one tree in a tar
oci         layers stay layers: blobs, config and manifest as values; the layout on disk
docker      the same with the list that Docker reads
sbininit    /sbin/init for engines that start nothing else
incus proxmox nspawn    how each wants its tar
readonly    squashfs and erofs, through their programs
"""
