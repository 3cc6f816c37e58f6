//! Keyboards of several countries: a Linux console that has a country's layout is typed on, and what arrives there is read.
//!
//! Its keymaps are those of the package console-data, which know nothing of xkeyboard-config, where ours are from. All is typed twice:
//! as text, and by the places of keys, as somebody at such a keyboard does it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use watari_qemu::{Input, Monitor};
use watari_screen::{Layout, Stroke, qnum, strokes};

use crate::lab::PATIENCE;

/// Passes on what is typed, and takes the names of keymaps.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
stty -F /dev/ttyS0 raw -echo
kbd_mode -u -C /dev/tty1
exec < /dev/ttyS0 > /dev/ttyS0
cat /dev/tty1 &
echo ready
while read -r keymap; do
    loadkeys -q -u -C /dev/tty1 $keymap 2>&1 && echo \"loaded $keymap\"
done
";

/// Keymaps that are older than the euro say that there is a currency sign where it is.
const EURO: &str = "altgr keycode 18 = U+20ac\n";

/// Puts the folder `$1` together, and writes it as an archive.
const PACK: &str = "
cd \"$1\" && chmod 755 init && mkdir -p bin dev proc usr/share/keymaps && cp /bin/busybox bin && cp -r /usr/share/keymaps/i386 usr/share/keymaps &&
gunzip -qr usr/share/keymaps && cp --parents -L $(ldd /bin/loadkeys | grep -o '/[^ ]*') /bin/loadkeys . &&
find . -mindepth 1 | cpio --quiet -o -H newc -R 0:0 > \"$2\"";

/// A layout, the keymap that is like it, which characters of ASCII are elsewhere on that one, and which others are not.
type Country = (&'static str, &'static str, &'static str, &'static str);

#[rustfmt::skip]
const COUNTRIES: [Country; 20] = [
    ("us", "us", "", ""),
    ("de", "de-latin1 /with-euro", "", "äöüÄÖÜß€§°²³µáàâéèêíóúôîùûÀÉý"),
    ("fr", "fr-latin9", "`", "éèçàùâêîôûëïüäöÄÖÜ€£§°µ"),
    ("jp", "jp106", "", ""),
    ("us-intl", "us-intl.iso15", "", "äöüÄÖÜàâéèêëîïôùûÀÉñÑ¿¡ãõáíóúý€"),
    ("gb", "uk", "", "£"),
    ("es", "es", "", "ñÑçÇ¿¡áéíóúüàèâêäëÀÉý"),
    ("pt", "pt-latin1", "", "çÇãõñÑáéíóúàâêôüÀÉ§£"),
    ("br", "br-abnt2", "", "çÇãõñÑáéíóúàâêôüÀÉ§²³£"),
    ("ca", "cf", "", "éèçàùâêîôûëïüÀÇÉ§°²³µ£"),
    ("dk", "dk-latin1", "", "æøåÆØÅäöüéèâêñ§£"),
    ("fi", "fi-latin1", "", "åäöÅÄÖüéèâêñ§£"),
    ("pl", "pl", "", "ąćłóŁ"),
    ("se", "se-latin1", "^~", "åäöÅÄÖüéèÀÉ§£"),
    ("no", "no-latin1", "$^`~", "æøåÆØÅéÉ§£"),
    ("hu", "hu", "<", "áéíóöőúüűÖÜßŁł§"),
    ("tr", "trq", "|", "çğıöşüÇÖÜâîôûé"),
    ("nl", "nl", "~", "äëïöüéèáàçÇß§°²³£"),
    ("ch", "sg-latin1", "]}", "äöüéèàâêçñÀÉ§°£"),
    ("be", "be-latin1", "[\\`{", "éèçàùâêîôûëïü°"),
];

/// What somebody presses at such a keyboard, and what comes of it.
type Pressed = (&'static str, &'static [(&'static str, &'static str)]);

const PRESSED: [Pressed; 4] = [
    (
        "us",
        &[
            ("ShiftLeft+KeyH KeyE KeyY ShiftRight+Digit1", "Hey!"),
            ("KeyQ KeyZ KeyY Minus ShiftLeft+Minus Equal ShiftLeft+Equal", "qzy-_=+"),
            ("ShiftLeft+Digit2 BracketLeft ShiftLeft+BracketRight Backslash ShiftLeft+Backslash", "@[}\\|"),
            ("Backquote ShiftLeft+Backquote Quote ShiftLeft+Quote ShiftLeft+Slash Slash", "`~'\"?/"),
            ("CapsLock KeyA ShiftLeft+KeyA CapsLock KeyA NumpadAdd NumpadMultiply", "Aaa+*"),
        ],
    ),
    (
        "de",
        &[
            ("ShiftLeft+KeyZ KeyY BracketLeft Semicolon Quote Minus", "Yzüöäß"),
            ("AltRight+KeyQ AltRight+KeyE AltRight+Digit7 AltRight+Digit8", "@€{["),
            ("AltRight+Digit9 AltRight+Digit0 AltRight+Minus AltRight+IntlBackslash", "]}\\|"),
            ("AltRight+BracketRight Space IntlBackslash ShiftLeft+IntlBackslash", "~<>"),
            ("Equal KeyE ShiftLeft+Equal KeyA Backquote KeyO Backquote Space", "éàô^"),
            ("Backslash ShiftLeft+Backslash Slash ShiftLeft+Digit3 ShiftLeft+Backquote", "#'-§°"),
        ],
    ),
    (
        "fr",
        &[
            ("KeyQ KeyW KeyA Semicolon KeyM ShiftRight+KeyQ", "azqm,A"),
            ("Digit2 Digit7 Digit9 Digit0 Quote ShiftLeft+Digit1 ShiftLeft+Digit0", "éèçàù10"),
            ("BracketLeft KeyE ShiftLeft+BracketLeft KeyI BracketLeft Space", "êï^"),
            ("AltRight+Digit0 AltRight+KeyE AltRight+Digit4 AltRight+Digit5", "@€{["),
            ("AltRight+Minus AltRight+Equal AltRight+Digit6 AltRight+Digit8", "]}|\\"),
            ("Slash Period Comma ShiftLeft+KeyM Digit4 Digit3 Digit8", "!:;?'\"_"),
        ],
    ),
    (
        "jp",
        &[
            ("BracketLeft Quote BracketRight Backslash Equal", "@:[]^"),
            ("IntlYen ShiftLeft+IntlYen IntlRo ShiftLeft+IntlRo", "\\|\\_"),
            ("ShiftLeft+Digit2 ShiftLeft+Digit6 ShiftLeft+Digit7 ShiftLeft+Minus", "\"&'="),
            ("ShiftLeft+Equal ShiftLeft+BracketLeft ShiftLeft+Quote ShiftLeft+Semicolon", "~`*+"),
            ("ShiftRight+KeyA KeyZ ShiftLeft+Backslash ShiftLeft+BracketRight", "Az}{"),
        ],
    ),
];

/// A machine whose console is typed on.
struct Guest {
    monitor: Monitor,
    said: Lines<BufReader<ChildStdout>>,
    tell: ChildStdin,
    _qemu: Child,
    _folder: TempDir,
}

impl Guest {
    async fn start() -> Guest {
        let folder = tempfile::tempdir().unwrap();
        let (socket, initrd) = (folder.path().join("qmp"), pack(folder.path()));
        let mut qemu = tokio::process::Command::new("qemu-system-x86_64")
            .args(["-nodefaults", "-machine", "q35,accel=tcg", "-m", "256", "-display", "none"])
            .args(["-device", "VGA", "-serial", "stdio"])
            .args(["-qmp", &format!("unix:{},server=on,wait=off", socket.display())])
            .args([Path::new("-kernel"), &watari_demo::find_kernel().unwrap().image])
            .args([Path::new("-initrd"), &initrd])
            .args(["-append", "console=tty0 quiet panic=-1 rdinit=/init"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let monitor = Monitor::connect(&socket, Instant::now() + PATIENCE).unwrap();
        let said = BufReader::new(qemu.stdout.take().unwrap()).lines();
        let tell = qemu.stdin.take().unwrap();
        let mut guest = Guest { monitor, said, tell, _qemu: qemu, _folder: folder };
        assert_eq!(guest.line().await, "ready");
        guest
    }

    /// The next line that it says.
    async fn line(&mut self) -> String {
        let line = tokio::time::timeout(PATIENCE, self.said.next_line()).await;
        line.expect("the guest says nothing").unwrap().expect("the guest is gone")
    }

    async fn load(&mut self, keymap: &str) {
        self.tell.write_all(format!("{keymap}\n").as_bytes()).await.unwrap();
        assert_eq!(self.line().await, format!("loaded {keymap}"));
    }

    /// Sends them as fast as the guest takes them, as a keeper does.
    async fn send(&self, strokes: &[Stroke]) {
        for &Stroke { key: qnum, is_down } in strokes {
            while self.monitor.has_untaken_input().unwrap() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            self.monitor.input(Input::Key { qnum, is_down }).unwrap();
        }
    }

    /// What arrives of a text that is typed.
    async fn typed(&mut self, text: &str, layout: &Layout) -> String {
        self.send(&strokes(&format!("{text}\n"), layout).unwrap()).await;
        let mut lines = Vec::new();
        for _ in 0..=text.matches('\n').count() {
            lines.push(self.line().await);
        }
        lines.join("\n")
    }

    /// What arrives when keys are pressed: one after the other, those that are joined with `+` together.
    async fn pressed(&mut self, keys: &str) -> String {
        let mut all = Vec::new();
        for chord in keys.split(' ').chain(["Enter"]) {
            let stroke = |is_down| move |code| Stroke { key: qnum(code).unwrap(), is_down };
            all.extend(chord.split('+').map(stroke(true)));
            all.extend(chord.rsplit('+').map(stroke(false)));
        }
        self.send(&all).await;
        self.line().await
    }
}

fn pack(folder: &Path) -> PathBuf {
    let (root, initrd) = (folder.join("root"), folder.join("initrd"));
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("init"), INIT).unwrap();
    std::fs::write(root.join("with-euro"), EURO).unwrap();
    let packed = Command::new("sh").args(["-ec", PACK, "sh"]).args([&root, &initrd]).output().unwrap();
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    initrd
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_typed_arrives_whatever_the_country() {
    let mut guest = Guest::start().await;
    for (name, keymap, elsewhere, more) in COUNTRIES {
        guest.load(keymap).await;
        let layout = Layout::named(name).unwrap();
        let ascii: String = (' '..='~').filter(|character| !elsewhere.contains(*character)).collect();
        let text = format!("{ascii}\nA\tb {more}Z");
        assert_eq!(guest.typed(&text, layout).await, text, "{name}");
        let pressed = PRESSED.iter().filter(|(pressed, _)| *pressed == name);
        for (keys, wanted) in pressed.flat_map(|(_, pressed)| *pressed) {
            assert_eq!(guest.pressed(keys).await, *wanted, "{name}: {keys}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_text_arrives_whole() {
    let mut guest = Guest::start().await;
    guest.load("us").await;
    let line = "The Quick brown fox_jumps over {the} LAZY dog; 0123456789.";
    let text = [line; 40].join("\n");
    assert_eq!(guest.typed(&text, Layout::named("us").unwrap()).await, text);
}
