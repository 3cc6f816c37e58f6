# Puts the folder $1 together, which has an init, with what the host has of a desktop and the modules of the kernel $2 that has an agent's
# port, and writes it as an archive, $3.
PATH=$PATH:/usr/sbin:/sbin
cd "$1"
chmod 755 init
mkdir -p bin dev proc sys tmp usr/share/X11 usr/lib/locale
cp /bin/busybox bin
cp -r /usr/share/X11/xkb usr/share/X11
cp -r /usr/lib/locale/C.utf8 usr/lib/locale
for program in Xvfb xkbcomp xclip spice-vdagentd spice-vdagent; do
    path=$(command -v $program)
    cp --parents -L "$path" $(ldd "$path" | grep -o '/[^ ]*') .
done
for module in virtio_pci virtio_console; do
    modprobe -S "$2" --show-depends $module
done | awk '!seen[$2]++ { print $2 }' > modules
xargs cp --parents -t . < modules
find . -mindepth 1 | cpio --quiet -o -H newc -R 0:0 > "$3"
