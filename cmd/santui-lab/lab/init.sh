#!/bin/busybox sh
# PID 1 of a lab node. The root it starts on is the host's own file system, read only (hostfs); it puts a writable
# layer over it that lives on the node's system disk, brings the network up and starts sshd.
# Until /proc is mounted, /proc is the HOST's: busybox applets without a path would re-run linux.uml itself.
/bin/busybox mount -t proc proc /proc
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
for word in $(/bin/busybox cat /proc/cmdline); do
	case $word in lab_env=*) . "${word#lab_env=}" ;; esac
done
fail() {
	echo "santui-lab: boot failed: $*"
	/bin/busybox poweroff -f
}

insmod "$LAB_OVERLAY" || fail "insmod overlay"
mount -t ext4 /dev/ubdc /mnt || fail "mount the system disk /dev/ubdc"
mkdir -p /mnt/upper /mnt/work /mnt/own /mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root || fail "mount overlay"
cd /mnt/root && /bin/busybox pivot_root . mnt || fail "pivot_root"
/bin/busybox mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
for dir in /dev/shm /run /tmp; do mount -t tmpfs -o mode=1777 tmpfs $dir; done
chmod 755 /run
mkdir -p /run/lock /run/sshd

# What the host keeps here is none of the node's business; the node's own survives a power cut.
for dir in /root /home /etc/lvm /etc/santui /var/lib/drbd /var/lib/santui /var/log; do
	mkdir -p "$dir" "/mnt/mnt/own$dir"
	mount --bind "/mnt/mnt/own$dir" "$dir"
done
chmod 700 /root
umount -l /mnt
mkdir -p /srv
mount -t hostfs -o "$LAB_SHARE" none /srv || fail "mount the shared folder"
ln -sf ubdb /dev/md3

hostname "$LAB_NODE"
echo "$LAB_NODE" >/etc/hostname
cp /srv/.lab/hosts /etc/hosts
cp /srv/.lab/lvm.conf /etc/lvm/lvm.conf
grep -q '^sshd:' /etc/passwd || echo 'sshd:x:22:65534::/run/sshd:/usr/sbin/nologin' >>/etc/passwd
sed -i 's/^root:[^:]*:/root:*:/' /etc/shadow
: >/etc/fstab

# A node that runs santui's own engine must not load the kernel's by accident (drbdadm does, unasked).
[ "$LAB_DRBD" = yes ] || mount --bind /dev/null "$LAB_MODULES/$LAB_DRBD_KO"
mkdir -p /lib/modules
mount --rbind "${LAB_MODULES%/*}" /lib/modules
[ -e /sbin/modprobe ] || ln -s /bin/busybox /sbin/modprobe
while read -r file options; do
	insmod "$LAB_MODULES/$file" $options || echo "santui-lab: insmod $file failed"
done <"$LAB_MODLIST"

ip link set lo up
for n in 0 1; do ip link set vec$n name eth$n; done
ip addr add "$LAB_ADDR" dev eth0
ip addr add "$LAB_MGMT" dev eth1
ip link set eth0 up
ip link set eth1 up

install -D -m 600 /srv/.lab/host_key /run/lab/host_key
install -D -m 600 /srv/.lab/authorized_keys /run/lab/authorized_keys
"$LAB_SSHD" -f /dev/null -E /var/log/sshd.log -h /run/lab/host_key -o UsePAM=no -o StrictModes=no -o PidFile=none \
	-o PermitRootLogin=prohibit-password -o PasswordAuthentication=no -o UseDNS=no -o MaxSessions=200 \
	-o AuthorizedKeysFile=/run/lab/authorized_keys -o "SetEnv=PATH=$PATH" || fail "start sshd"
echo "santui-lab: ready after $(cut -d' ' -f1 /proc/uptime) s"
while :; do
	sleep 3600 &
	wait $!
done
