# Loads the rest of its disk behind itself, keeps the BIOS' font, and goes on in C with 32 bits.
.code16
.globl _start
_start:
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %ss
    mov $0x7c00, %sp
    mov $packet, %si
    mov $0x42, %ah
    int $0x13
    mov $0x1130, %ax            # es:bp is a font of 8 by 16 pixels
    mov $6, %bh
    int $0x10
    push %es
    pop %ds
    mov %bp, %si
    xor %ax, %ax
    mov %ax, %es
    mov $0x1000, %di
    mov $4096, %cx
    cld
    rep movsb
    mov %ax, %ds
    cli
    lgdt table
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmp $8, $wide

.code32
wide:
    mov $16, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x90000, %esp
    mov $__bss_start, %edi
    mov $_end, %ecx
    sub %edi, %ecx
    xor %eax, %eax
    rep stosb
    jmp run

    .balign 8
segments:
    .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
table:
    .word table - segments - 1
    .long segments
packet:                         # 64 sectors from the second on, to 0x7e00
    .byte 16, 0
    .word 64, 0x7e00, 0
    .quad 1
    .org 510
    .byte 0x55, 0xaa

.section .rodata
.globl text, text_end
text:
    .incbin "guest.c"
text_end:
