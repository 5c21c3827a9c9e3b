#!/bin/busybox sh
# The guest's first program: drivers, the disk, then the workload takes its place.
# /modules/order names the drivers, each after what it needs.
/bin/busybox mkdir -p /proc /dev /disk
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
while read -r module; do
	/bin/busybox insmod "/modules/$module" || echo "check FAIL cannot load $module"
done </modules/order
for _ in 1 2 3 4 5 6 7 8 9 10; do
	[ -b /dev/vda ] && break
	/bin/busybox sleep 0.2
done
/bin/busybox mount -t ext4 -o noatime,noinit_itable /dev/vda /disk || echo "check FAIL cannot mount the disk"
exec /dcnode-guest </dev/ttyS0 >/dev/ttyS0 2>&1
