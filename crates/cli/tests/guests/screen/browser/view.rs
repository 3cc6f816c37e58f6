//! A page in a browser, whichever that is.

use data_encoding::BASE64;
use headless_chrome::protocol::cdp::Input::MouseButton;
use serde_json::Value;

use super::Pixels;
use crate::lab;

pub trait View {
    /// The value of an expression: a text, a number, a boolean or nothing. Promises are waited for.
    fn evaluate(&self, expression: &str) -> Value;

    /// Presses a key, or lets go of it, by its place on the keyboard.
    fn key(&self, code: &str, is_down: bool);

    /// Moves the pointer to a place in the window, in CSS pixels, and clicks there.
    fn click(&self, x: f64, y: f64, button: MouseButton);

    fn text(&self, expression: &str) -> String {
        self.evaluate(expression).as_str().unwrap_or_else(|| panic!("{expression} is no text")).to_owned()
    }

    /// Waits until an expression is true.
    fn wait_for(&self, what: &str, expression: &str) {
        lab::wait(what, || (self.evaluate(expression) == true).then_some(()));
    }

    /// Presses keys one after the other.
    fn press(&self, codes: &[&str]) {
        for code in codes {
            self.key(code, true);
            self.key(code, false);
        }
    }

    /// Presses a button of the page by what stands on it.
    fn click_button(&self, text: &str) {
        self.evaluate(&format!(
            "[...document.querySelectorAll('button')].find(button => button.textContent === '{text}').click()"
        ));
    }

    /// What the canvas shows.
    fn canvas(&self) -> Pixels {
        let url = self.text(
            "(() => { const shown = document.querySelector('canvas'); \
             const copy = Object.assign(document.createElement('canvas'), { width: shown.width, height: shown.height }); \
             copy.getContext('2d').drawImage(shown, 0, 0); return copy.toDataURL('image/png'); })()",
        );
        Pixels::of_url(&url)
    }

    /// What the page's own painter makes of updates.
    fn paint(&self, updates: &[Vec<u8>]) -> Pixels {
        let updates: Vec<String> = updates.iter().map(|update| BASE64.encode(update)).collect();
        let url = self.text(&format!(
            "(async () => {{ const {{ Painter }} = await import('/screen/painter.js'); \
             const canvas = new OffscreenCanvas(1, 1), painter = new Painter(canvas); \
             for (const update of {updates:?}) {{ \
             painter.paint(await painter.read(Uint8Array.from(atob(update), c => c.charCodeAt(0)).buffer)); }} \
             const blob = await canvas.convertToBlob({{ type: 'image/png' }}); \
             return new Promise(done => {{ const reader = new FileReader(); reader.onload = () => done(reader.result); \
             reader.readAsDataURL(blob); }}); }})()"
        ));
        Pixels::of_url(&url)
    }
}
