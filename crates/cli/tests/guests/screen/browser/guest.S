# A guest that fits into a boot sector. It shows a counter at the upper right, and what it is told below; keys and the pointer's
# buttons it also tells on the serial line: a key as its character, buttons as a digit, 1 left, 2 right, 4 middle. The tabulator
# changes the size of its screen, from 720 by 400 to 640 by 480 pixels.
.code16
.globl _start
_start:
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x7c00, %sp
    mov $0x0003, %ax            # 80 by 25 characters
    int $0x10
    mov $0xc205, %ax            # the pointer's packets have three bytes
    mov $3, %bh
    int $0x15
    mov $0xc207, %ax            # and come to `pointed`
    mov $pointed, %bx
    int $0x15
    mov $0xc200, %ax            # from now on
    mov $1, %bh
    int $0x15
    jmp again
idle:
    hlt                         # until a tick, a key, the pointer
again:
    mov $0xb800, %ax
    mov %ax, %es
    mov 0x46c, %al              # ticks, 18 a second
    and $0x3f, %al
    add $0x20, %al
    mov %al, %es:158
    mov $1, %ah
    int $0x16
    jz idle
    xor %ah, %ah
    int $0x16
    mov $0x3f8, %dx
    out %al, %dx
    cmp $9, %al
    je change
    mov $0x0e, %ah
    int $0x10
    jmp again
change:
    mov $0x0012, %ax
    int $0x10
    jmp again

pointed:                        # far: the status is the last of four words
    push %bp
    mov %sp, %bp
    push %ax
    push %dx
    mov 12(%bp), %al
    and $7, %al
    cmp %al, %cs:buttons
    je told
    mov %al, %cs:buttons
    add $'0', %al
    mov $0x3f8, %dx
    out %al, %dx
told:
    pop %dx
    pop %ax
    pop %bp
    lret

buttons: .byte 0
    .org 510
    .byte 0x55, 0xaa
