# boot.sh LOWER DIR CGROUP becomes the systemd of a Debian whose files are in LOWER, as pid 1 of namespaces of its own.
# What it writes goes to a tmpfs on DIR. It cannot change settings of the machine, only those of its network namespace.
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
root=$2/root

mount -t proc proc "$root/proc"
mkdir "$2/proc"
mount -t proc proc "$2/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount --bind "$2/proc/sys/net" "$root/proc/sys/net"
umount "$2/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=0755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do
	touch "$root/dev/$node"
	mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs -o mode=0755 tmpfs "$root/run"

# A cgroup that it takes for the root of all.
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then hierarchies=.; else hierarchies='systemd unified'; fi
for h in $hierarchies; do
	[ -d "/sys/fs/cgroup/$h" ] || continue
	mkdir -p "/sys/fs/cgroup/$h$3"
	echo 0 >"/sys/fs/cgroup/$h$3/cgroup.procs"
done
export root
exec unshare --cgroup sh -ec '
	cgroup=$root/sys/fs/cgroup
	if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
		mount -t cgroup2 cgroup2 "$cgroup"
	else
		mount -t tmpfs tmpfs "$cgroup"
		mkdir "$cgroup/systemd" "$cgroup/unified"
		mount -t cgroup -o none,name=systemd cgroup "$cgroup/systemd"
		mount -t cgroup2 cgroup2 "$cgroup/unified"
	fi
	cd "$root"
	pivot_root . mnt
	umount -l /mnt
	exec env -i container=lab PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		/lib/systemd/systemd --system --log-target=console --log-level=info --show-status=no'
