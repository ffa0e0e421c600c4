#!/bin/sh
# packages.sh COMMAND… makes sure that the operating system has these commands: as root it installs the Debian packages
# they are in, else it says how to.
set -eu

packages=
for command in "$@"; do
	command -v "$command" >/dev/null && continue
	case $command in
	gcc) packages="$packages gcc libc6-dev" ;; # the race detector is linked by it
	systemd-analyze) packages="$packages systemd" ;;
	ping) packages="$packages iputils-ping" ;;
	llvm-strip) packages="$packages llvm" ;;
	nft) packages="$packages nftables" ;;
	wg) packages="$packages wireguard-tools" ;;
	qemu-system-x86_64) packages="$packages qemu-system-x86" ;;
	dockerd) packages="$packages docker.io" ;;
	*/bash_completion) packages="$packages bash-completion" ;;
	*/netavark) packages="$packages netavark" ;; # not in PATH
	ip | bridge | tc) packages="$packages iproute2" ;;
	*) packages="$packages $command" ;;
	esac
done
[ -n "$packages" ] || exit 0

install="apt-get install -y --no-install-recommends$packages"
if [ "$(id -u)" != 0 ]; then
	echo "Packages are missing:$packages. As root: apt-get update && $install" >&2
	exit 1
fi
if ! command -v apt-get >/dev/null; then
	echo "Packages are missing:$packages. Install them with this system's package manager." >&2
	exit 1
fi
echo "installing$packages"
# Nothing of it is started now: a Docker, for one, would change the machine's packet filter (policy-rc.d, see invoke-rc.d(8)).
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	trap 'rm -f $policy' EXIT
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod 755 $policy
fi
apt-get update -qq
# shellcheck disable=SC2086 # several words on purpose
DEBIAN_FRONTEND=noninteractive $install -qq >/dev/null
