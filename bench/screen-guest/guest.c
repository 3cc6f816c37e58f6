// A guest that shows what the benchmarks of the screen need, at 1280 by 720 pixels, and is told what over its serial line:
//
//   k        an empty terminal; each key that is pressed puts a character into the next cell, from the upper left
//   l LINES  lines of a program scroll up, twenty a second; each is told as `L`, the end as `S`
//   f TICKS  a film, a picture every so many sixtieths of a second; its beginning is told as `F`, each picture as `.`
//
// Each with a newline behind it. The film's upper left corner shows the number of the picture as a Gray code of 16 bits, in
// blocks of 32 by 32 pixels, the lowest bit first: a rough picture does not blur it, and one that is caught between two is one of them.
// It is drawn last, and told right after that.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;

enum { WIDTH = 1280, HEIGHT = 720, ACROSS = WIDTH / 8, DOWN = HEIGHT / 16, TICKS = 60, LINE_TICKS = 3 };
enum { BIT = 32, CORNER = 4 * BIT, AROUND = 1024, WIDE = AROUND + WIDTH, DISCS = 3 };
enum { PAPER = 0x102030, SERIAL = 0x3f8 };

static const u8 *const font = (u8 *)0x1000;
static u32 *const scene = (u32 *)0x200000;
static u32 *screen;
extern const char text[], text_end[];

static volatile u32 ticks;
static volatile u32 cell;
static volatile int takes_keys;
static const char *at = text;

static inline void outb(u16 port, u8 value) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }
static inline void outw(u16 port, u16 value) { __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port)); }
static inline void outl(u16 port, u32 value) { __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port)); }
static inline u8 inb(u16 port) { u8 value; __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port)); return value; }
static inline u32 inl(u16 port) { u32 value; __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port)); return value; }

static void copy(u32 *to, const u32 *from, u32 count) {
    __asm__ volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
}

static void fill(u32 *to, u32 colour, u32 count) {
    __asm__ volatile("rep stosl" : "+D"(to), "+c"(count) : "a"(colour) : "memory");
}

static void tell(u8 what) {
    while (!(inb(SERIAL + 5) & 0x20)) {}
    outb(SERIAL, what);
}

// The sine of 256ths of a circle, times 256: the parabola that is nearest.
static int sine(u32 angle) {
    int half = angle & 127, value = half * (128 - half) / 16;
    return angle & 128 ? -value : value;
}

static void draw(u32 column, u32 row, u8 character, u32 ink) {
    u32 *to = screen + row * 16 * WIDTH + column * 8;
    for (u32 y = 0; y < 16; y++, to += WIDTH)
        for (u32 x = 0; x < 8; x++) to[x] = font[character * 16 + y] & 0x80 >> x ? ink : PAPER;
}

struct frame;

__attribute__((interrupt)) static void tick(struct frame *frame) {
    (void)frame;
    ticks++;
    outb(0x20, 0x20);
}

__attribute__((interrupt)) static void key(struct frame *frame) {
    (void)frame;
    u8 code = inb(0x60);
    // Of what is let go of, and of keys that have two codes, nothing is shown.
    if (takes_keys && code < 0x80) {
        draw(cell % ACROSS, cell / ACROSS, 'a' + cell % 26, 0xe0e0e0);
        cell = (cell + 1) % (ACROSS * DOWN);
    }
    outb(0x20, 0x20);
}

static struct { u16 low, segment, kind, high; } vectors[34];

static void on(u32 vector, void (*handler)(struct frame *)) {
    vectors[vector].low = (u32)handler;
    vectors[vector].high = (u32)handler >> 16;
    vectors[vector].segment = 8;
    vectors[vector].kind = 0x8e00;
}

static void interrupts(void) {
    static struct __attribute__((packed)) { u16 limit; u32 base; } table = { sizeof vectors - 1, (u32)vectors };
    on(32, tick);
    on(33, key);
    __asm__ volatile("lidt %0" : : "m"(table));
    static const u8 first[] = { 0x11, 32, 4, 1, 0xfc }, second[] = { 0x11, 40, 2, 1, 0xff };
    for (u32 step = 0; step < 5; step++) {
        outb(step ? 0x21 : 0x20, first[step]);
        outb(step ? 0xa1 : 0xa0, second[step]);
    }
    u32 divisor = 1193182 / TICKS;
    outb(0x43, 0x34);
    outb(0x40, divisor);
    outb(0x40, divisor >> 8);
    __asm__ volatile("sti");
}

static void graphics(void) {
    // Index and value: off, width, height, bits of a pixel; on, in one piece.
    static const u16 mode[][2] = { { 4, 0 }, { 1, WIDTH }, { 2, HEIGHT }, { 3, 32 }, { 4, 0x41 } };
    for (u32 step = 0; step < 5; step++) {
        outw(0x1ce, mode[step][0]);
        outw(0x1cf, mode[step][1]);
    }
    for (u32 device = 0; device < 32; device++) {
        outl(0xcf8, 0x80000008 | device << 11);
        if (inl(0xcfc) >> 16 != 0x0300) continue;
        outl(0xcf8, 0x80000010 | device << 11);
        screen = (u32 *)(inl(0xcfc) & ~15u);
    }
}

// What the film pans over: soft colours that come again after `AROUND` pixels, with the grain that films have.
static void paint_scene(void) {
    u32 noise = 1;
    for (u32 y = 0; y < HEIGHT; y++) {
        for (u32 x = 0; x < WIDE; x++) {
            noise = noise * 1664525 + 1013904223;
            int grain = (noise >> 24) % 5 - 2;
            int red = 128 + (sine(x / 4) + sine(y / 3 + x / 2)) / 5 + grain;
            int green = 128 + (sine(x / 2 + y / 4) + sine(y / 2)) / 5 + grain;
            int blue = 128 + (sine(x * 3 / 4 - y / 6) + sine(x / 4 + 64)) / 5 + grain;
            scene[y * WIDE + x] = red << 16 | green << 8 | blue;
        }
    }
}

static void draw_disc(u32 y, u32 disc, u32 number) {
    int radius = 60 + 30 * disc, down = HEIGHT / 2 + sine(number * (disc + 1)) * 200 / 256;
    int across = WIDTH / 2 + CORNER / 2 + sine(number * 2 + disc * 90) * 400 / 256;
    int left = (int)y - down, half = 0;
    if (left * left >= radius * radius) return;
    while (half * half + left * left < radius * radius) half++;
    fill(screen + y * WIDTH + across - half, 0xc04020 + disc * 0x205060 + (left & 0x1f), 2 * half);
}

static void draw_picture(u32 number) {
    for (u32 y = 0; y < HEIGHT; y++) {
        u32 from = y < CORNER ? CORNER : 0;
        // Further with each picture, and not all rows alike: nothing stands still, and nothing has scrolled.
        u32 pan = (number * 5 + sine(y / 4 + number) * 40 / 256) % AROUND;
        copy(screen + y * WIDTH + from, scene + y * WIDE + pan + from, WIDTH - from);
        for (u32 disc = 0; disc < DISCS; disc++) draw_disc(y, disc, number);
    }
    u32 code = number ^ number >> 1;
    for (u32 y = 0; y < CORNER; y++)
        for (u32 x = 0; x < 4; x++) fill(screen + y * WIDTH + x * BIT, code >> (y / BIT * 4 + x) & 1 ? 0xffffff : 0, BIT);
}

static void scroll(void) {
    copy(screen, screen + 16 * WIDTH, (HEIGHT - 16) * WIDTH);
    fill(screen + (HEIGHT - 16) * WIDTH, PAPER, 16 * WIDTH);
    static const u32 inks[] = { 0xd0d0d0, 0x80c0ff, 0x90d090, 0xe0c080 };
    u32 ink = inks[(u32)*at % 4];
    for (u32 column = 0; *at != '\n'; at++, column++)
        if (column < ACROSS) draw(column, DOWN - 1, *at, ink);
    if (++at == text_end) at = text;
}

static void wait_until(u32 tick) {
    while ((int)(ticks - tick) < 0) __asm__ volatile("hlt");
}

static int is_told(void) { return inb(SERIAL + 5) & 1; }

static u8 heard(void) {
    while (!is_told()) __asm__ volatile("hlt");
    return inb(SERIAL);
}

static void film(u32 pause) {
    u32 next = ticks;
    tell('F');
    for (u32 number = 0; !is_told(); number++, next += pause) {
        wait_until(next);
        // What is too late is left out, and not made up for.
        if ((int)(ticks - next) > (int)pause) next = ticks;
        draw_picture(number);
        tell('.');
    }
}

static void lines(u32 count) {
    for (u32 next = ticks; count; count--, next += LINE_TICKS) {
        wait_until(next);
        scroll();
        tell('L');
    }
    tell('S');
}

void run(void) {
    graphics();
    interrupts();
    paint_scene();
    for (;;) {
        u8 what = heard();
        u32 number = 0;
        for (u8 digit; (digit = heard()) != '\n';)
            if (digit >= '0' && digit <= '9') number = number * 10 + digit - '0';
        takes_keys = what == 'k';
        if (what == 'k') {
            fill(screen, PAPER, WIDTH * HEIGHT);
            cell = 0;
            tell('K');
        } else if (what == 'l') {
            lines(number);
        } else if (what == 'f') {
            film(number);
        }
    }
}
