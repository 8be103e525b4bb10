# What makes a machine of fresh namespaces; run inside of them: sh boot.sh NAME FOLDER SHARED...
# FOLDER has hosts and resolv.conf for all, and NAME/ with what is this machine's own. The file system is
# otherwise the machine's, with the exception of /tmp, /run and /dev/shm: only the paths SHARED, where they lie in
# /tmp, are the same for all, as a cluster's home folders are.
set -eu
name=$1 folder=$2
shift 2

hostname "$name"
mount --bind "$folder/hosts" /etc/hosts
mount --bind "$folder/resolv.conf" /etc/resolv.conf
mount --bind "$folder/$name/hostname" /etc/hostname

# In memory: what is in /tmp does not outlive the power.
mount -t tmpfs -o mode=1777 tmpfs "$folder/$name/tmp"
for path in "$@"; do
  case $path in /tmp/*)
    inside=$folder/$name/tmp${path#/tmp}
    mkdir -p "$inside"
    mount --bind "$path" "$inside"
    ;;
  esac
done
mount --rbind "$folder/$name/tmp" /tmp
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/sshd /run/lock
mount -t tmpfs -o mode=1777 tmpfs /dev/shm

# A sysfs shows the network that it was mounted in; UCX looks there for interfaces.
mount -t sysfs sysfs /sys
