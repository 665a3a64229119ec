"""What happens to a container once it is made: started, entered, copied, renamed, snapshotted, upgraded.

Reading order: phases, inside, copies, snapshots, generations, upgrading, views.
"""
