# A guest that fits into a boot sector. It shows a counter at the upper right, and what it is told below; keys and what is done with
# the pointer it also tells on the serial line: a key as its character, buttons as a digit, 1 left, 2 right, 4 middle, the wheel as u
# or d, and, between one Escape and the next, which way it is moved, as l, r, u or d. The tabulator changes the size of its screen,
# from 720 by 400 to 640 by 480 pixels.
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
    mov $rates, %si             # and one for the wheel, once these rates were set one after the other
    cld
more:
    lodsb
    mov %al, %bh
    mov $0xc202, %ax
    int $0x15
    cmp $rates_end, %si
    jne more
    mov $0xc207, %ax            # and come to `pointed`
    mov $pointed, %bx
    int $0x15
    push %es
    mov $0x40, %ax
    mov %ax, %es
    mov %es:0x0e, %es
    xorb $7, %es:0x27           # the firmware knows of no wheel: where it has the three a four belongs
    pop %es
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
    cmp $27, %al
    jne show
    xorb $1, tells_ways
show:
    mov $0x0e, %ah
    int $0x10
    jmp again
change:
    mov $0x0012, %ax
    int $0x10
    jmp again

pointed:                        # far: the status is the last of four words, after how far it moved
    push %bp
    mov %sp, %bp
    push %ax
    push %dx
    push %es
    mov 12(%bp), %al
    and $7, %al
    cmp %al, %cs:buttons
    je rolled
    mov %al, %cs:buttons
    add $'0', %al
    call tell
rolled:                         # the fourth byte is where the firmware keeps them
    mov $0x40, %ax
    mov %ax, %es
    mov %es:0x0e, %es
    mov $0x7564, %dx            # u and d
    mov %es:0x2b, %al
    cbw
    call way
    cmpb $0, %cs:tells_ways
    je told
    mov $0x6c72, %dx            # l and r
    mov 10(%bp), %al
    mov 12(%bp), %ah
    shl $3, %ah
    call way
    mov $0x6475, %dx            # d and u: up is more
    mov 8(%bp), %al
    mov 12(%bp), %ah
    shl $2, %ah
    call way
told:
    pop %es
    pop %dx
    pop %ax
    pop %bp
    lret

way:                            # tells dh where ah says that al is less than nothing, dl where it is more
    test %al, %al
    jz nowhere
    test %ah, %ah
    mov %dl, %al
    jns tell
    mov %dh, %al
tell:
    mov $0x3f8, %dx
    out %al, %dx
nowhere:
    ret

rates: .byte 6, 5, 4            # 200, 100 and 80 a second
rates_end:
tells_ways: .byte 0
buttons: .byte 0
    .org 510
    .byte 0x55, 0xaa
