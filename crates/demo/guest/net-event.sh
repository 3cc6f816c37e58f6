#!/bin/sh
# Runs for every event of the kernel: brings up network cards that appear, and says which come and go.
[ "$SUBSYSTEM" = net ] || exit 0
case $INTERFACE in eth*) ;; *) exit 0 ;; esac
case $ACTION in
add)
    echo "NET add $INTERFACE $(cat "/sys/class/net/$INTERFACE/address")" >/dev/ttyS0
    ip link set "$INTERFACE" up
    udhcpc -i "$INTERFACE" -s /bin/dhcp -b -S >/dev/null 2>&1
    ;;
remove) echo "NET remove $INTERFACE" >/dev/ttyS0 ;;
esac
