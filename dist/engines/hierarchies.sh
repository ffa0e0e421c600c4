# Mounts what pid 1 has a cgroup in, number:controllers:path (cgroups(7)), and removes what stands for others in /sys/fs/cgroup.
set -e
cd /sys/fs/cgroup
[ ! -e cgroup.controllers ] || exit 0
mount -o remount,rw /sys/fs/cgroup
for name in *; do
	[ -e "$name/cgroup.procs" ] || rm -r "$name" # an empty directory or a link: systemd expected cpu and cpuacct to be one, say
done
cut -d : -f 2 /proc/1/cgroup | while read -r controllers; do
	case $controllers in '' | name=*) continue ;; esac
	[ ! -e "$controllers" ] || continue
	mkdir "$controllers"
	mount -t cgroup -o "$controllers" cgroup "$controllers"
done
mount -o remount,ro /sys/fs/cgroup
