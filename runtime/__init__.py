"""Bundle to process: from a container's directory to an isolated, running service.

Read in this order: bundle, config, fstab; program, steps, rootfs, way, launch (a start as a list of system calls);
perform, birth, monitor (the list comes to life); container, enter. Nothing here knows packages or templates; the only
system calls are in `runtime.kernel`.

    starter ── monitor (host's namespaces; waits, records the exit status, cleans up)
                  └─ stage (own mount namespace: layers cloned, id-mapped, attached; enters the user namespace)
                        └─ init, a child of the monitor: all namespaces, overlay root, /dev, /proc, masks, pivot, exec
"""
