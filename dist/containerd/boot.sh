# boot.sh CGROUP becomes systemd, as pid 1 of namespaces of its own, on a node of the lab. Its units are those in
# /run/units and no others, so nothing of the machine's own is started.
set -e
mount --make-rprivate /

# A fresh /proc, with the settings that are the whole machine's read-only.
mount -t proc proc /proc
mkdir -p /run/proc
mount -t proc proc /run/proc
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount --bind /run/proc/sys/net /proc/sys/net
umount /run/proc

# What units get for a /tmp of their own would stay in the machine's when systemd is killed.
for dir in /tmp /var/tmp; do
	mkdir -p "/run/own$dir/upper" "/run/own$dir/work"
	mount -t overlay overlay -o "lowerdir=$dir,upperdir=/run/own$dir/upper,workdir=/run/own$dir/work" "$dir"
	chmod 1777 "$dir"
done

# A cgroup that it takes for the root of all.
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then hierarchies=.; else hierarchies='systemd unified'; fi
for h in $hierarchies; do
	[ -d "/sys/fs/cgroup/$h" ] || continue
	mkdir -p "/sys/fs/cgroup/$h$1"
	echo 0 >"/sys/fs/cgroup/$h$1/cgroup.procs"
done
exec unshare --cgroup sh -ec '
	if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
		umount -l /sys/fs/cgroup
		mount -t cgroup2 cgroup2 /sys/fs/cgroup
	else
		umount -l /sys/fs/cgroup
		mount -t tmpfs tmpfs /sys/fs/cgroup
		mkdir /sys/fs/cgroup/systemd /sys/fs/cgroup/unified
		mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
		mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
	fi
	mkdir -p /run/empty
	export container=lab SYSTEMD_UNIT_PATH=/run/units SYSTEMD_GENERATOR_PATH=/run/empty SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/run/empty
	exec /lib/systemd/systemd --system --unit=basic.target --log-target=console --log-level=info --show-status=no'
