#!/bin/sh
# The demo machine's init: drivers, network, agent, then what the kernel command line asks for.
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys

for word in $(cat /proc/cmdline); do
    case $word in
    watari.run=*) run=${word#watari.run=} ;;
    watari.args=*) args=${word#watari.args=} ;;
    esac
done

# Watari's test whether an accelerator works ends here.
if [ "$run" = probe ]; then
    echo 'watari: init runs'
    poweroff -f
fi

while read -r module; do
    insmod "/lib/modules/$module"
done </lib/modules/order
mount -t tmpfs -o size=1m run /run
ip link set lo up

/bin/watari-guest agent &
/bin/watari-guest power &
uevent /bin/net-event &
for interface in /sys/class/net/eth*; do
    [ -e "$interface" ] && ACTION=add SUBSYSTEM=net INTERFACE=${interface##*/} /bin/net-event &
done

IFS=,
case ${run:-counter} in
counter)
    /bin/watari-guest counter $args &
    # A session of its own that never ends: the end of one would hang up the line for all.
    exec setsid cttyhack /bin/serial-shell </dev/ttyS0 >/dev/ttyS0 2>&1
    ;;
*) /bin/watari-guest "$run" $args >/dev/ttyS0 2>&1 ;;
esac
echo "watari: $run ended"
# An init that ends stops the kernel; this one stays so that the message can be read.
exec sleep 1000000000
