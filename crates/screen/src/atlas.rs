//! The pixels of a plan, as two pictures that a browser decodes at once: one exact (PNG), one rough (JPEG).
//!
//! Blocks lie in an atlas as in a sheet of stamps, [`ACROSS`] in each row, in the order of the plan. An atlas is encoded once, however
//! many viewers need it.

use std::borrow::Cow;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use jpeg_encoder::{ColorType as JpegColor, Encoder as JpegEncoder, SamplingFactor};
use lru::LruCache;
use parking_lot::Mutex;
use png::{BitDepth, ColorType as PngColor, Compression, Filter};

use crate::grid::{At, BLOCK, Grid};
use crate::message;
use crate::plan::Plan;

/// How many blocks are beside each other in an atlas.
pub(crate) const ACROSS: u32 = 64;
/// How many encoded atlases are kept for viewers that come for the same a little later.
const KEPT: NonZeroUsize = NonZeroUsize::new(8).expect("not zero");
/// PNG knows palettes of so many colours.
const PALETTE: usize = 256;

/// Why a plan could not be turned into bytes: a library refused its own picture.
#[derive(Clone, Debug, thiserror::Error)]
#[error("what the screen shows could not be encoded as {format}: {reason}")]
pub struct EncodeError {
    format: &'static str,
    reason: String,
}

impl EncodeError {
    pub(crate) fn new(format: &'static str, reason: String) -> EncodeError {
        EncodeError { format, reason }
    }
}

/// The pixels of a plan; of what it has none, no bytes.
#[derive(Debug, Default)]
pub(crate) struct Atlases {
    pub(crate) exact: Vec<u8>,
    pub(crate) rough: Vec<u8>,
}

/// What an atlas is made of: the version of the picture, and blocks of it.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Recipe {
    version: u64,
    quality: u8,
    exact: Vec<At>,
    rough: Vec<At>,
}

/// The pixels of a plan, on their way into its atlases.
struct Work {
    /// Until they are encoded.
    sheets: Mutex<Option<Sheets>>,
    encoded: OnceLock<Result<Atlases, EncodeError>>,
}

/// The exact and the rough blocks, as far as there are any.
struct Sheets {
    exact: Option<Sheet>,
    rough: Option<Sheet>,
    quality: u8,
}

/// Turns plans into bytes, for all viewers of one screen.
pub struct Studio {
    kept: Mutex<LruCache<Recipe, Arc<Work>>>,
    encoded: Arc<AtomicU64>,
}

/// A plan with the pixels that it takes: the picture may change from now on.
pub struct Prepared {
    number: u32,
    size: (u32, u32),
    plan: Plan,
    work: Arc<Work>,
    encoded: Arc<AtomicU64>,
}

impl Default for Studio {
    fn default() -> Studio {
        Studio { kept: Mutex::new(LruCache::new(KEPT)), encoded: Arc::default() }
    }
}

impl Studio {
    /// Copies what it takes of the picture for a plan, unless somebody else has just needed the same. That is quick.
    pub fn prepare(&self, number: u32, grid: &Grid, plan: Plan) -> Prepared {
        let (exact, rough) = (plan.exact(), plan.rough());
        let quality = if rough.is_empty() { 0 } else { plan.quality };
        let recipe = Recipe { version: grid.version(), quality, exact, rough };
        let size = (grid.picture().width(), grid.picture().height());
        let mut kept = self.kept.lock();
        let work = match kept.get(&recipe) {
            Some(work) => Arc::clone(work),
            None => {
                let work = Arc::new(Work::new(grid, &recipe));
                kept.put(recipe, Arc::clone(&work));
                work
            }
        };
        Prepared { number, size, plan, work, encoded: Arc::clone(&self.encoded) }
    }

    /// How many plans' pixels were encoded so far.
    pub fn encoded(&self) -> u64 {
        self.encoded.load(Ordering::Relaxed)
    }
}

impl Prepared {
    /// The message that tells a viewer what to do, see `docs/SCREEN.md`. Takes as long as encoding does. Who asks for what somebody
    /// else has just asked for waits for that.
    ///
    /// # Errors
    /// The viewer does not get what the plan says, and is to begin anew.
    pub fn message(&self) -> Result<Vec<u8>, EncodeError> {
        let encode = || {
            self.encoded.fetch_add(1, Ordering::Relaxed);
            self.work.sheets.lock().take().map_or_else(|| Ok(Atlases::default()), |sheets| sheets.encode())
        };
        let atlases = self.work.encoded.get_or_init(encode).as_ref().map_err(Clone::clone)?;
        Ok(message::write(self.number, self.size, &self.plan, atlases))
    }
}

impl Work {
    fn new(grid: &Grid, recipe: &Recipe) -> Work {
        let sheet = |blocks: &[At]| (!blocks.is_empty()).then(|| Sheet::of(grid, blocks));
        let sheets =
            Sheets { exact: sheet(&recipe.exact), rough: sheet(&recipe.rough), quality: recipe.quality };
        Work { sheets: Mutex::new(Some(sheets)), encoded: OnceLock::new() }
    }
}

impl Sheets {
    fn encode(&self) -> Result<Atlases, EncodeError> {
        let exact = self.exact.as_ref().map(exactly).transpose()?.unwrap_or_default();
        let rough = self.rough.as_ref().map(|sheet| roughly(sheet, self.quality)).transpose()?;
        Ok(Atlases { exact, rough: rough.unwrap_or_default() })
    }
}

/// Blocks in rows, what is beyond the edges of the screen black.
struct Sheet {
    width: u32,
    height: u32,
    pixels: Vec<u32>,
}

impl Sheet {
    fn of(grid: &Grid, blocks: &[At]) -> Sheet {
        let count = blocks.len() as u32;
        let (width, height) = (count.min(ACROSS) * BLOCK, count.div_ceil(ACROSS) * BLOCK);
        let mut pixels = vec![0; width as usize * height as usize];
        for (index, at) in (0..).zip(blocks) {
            let rect = grid.rect(*at);
            let (left, top) = (index % ACROSS * BLOCK, index / ACROSS * BLOCK);
            for y in 0..rect.height {
                let start = ((top + y) * width + left) as usize;
                let row = grid.picture().row(rect.x, rect.y + y, rect.width);
                pixels[start..start + row.len()].copy_from_slice(row);
            }
        }
        Sheet { width, height, pixels }
    }

    fn rgb(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.pixels.len() * 3);
        for pixel in &self.pixels {
            let [blue, green, red, _] = pixel.to_le_bytes();
            bytes.extend([red, green, blue]);
        }
        bytes
    }

    /// Its colours, and which of them each pixel has; nothing if there are too many.
    fn palette(&self) -> Option<(Vec<u32>, Vec<u8>)> {
        let mut colours: Vec<u32> = Vec::new();
        let mut indices = Vec::with_capacity(self.pixels.len());
        let mut last = None;
        for pixel in &self.pixels {
            let index = match last {
                Some((colour, index)) if colour == *pixel => index,
                _ => match colours.iter().position(|colour| colour == pixel) {
                    Some(index) => index as u8,
                    None if colours.len() == PALETTE => return None,
                    None => {
                        colours.push(*pixel);
                        (colours.len() - 1) as u8
                    }
                },
            };
            last = Some((*pixel, index));
            indices.push(index);
        }
        Some((colours, indices))
    }
}

fn exactly(sheet: &Sheet) -> Result<Vec<u8>, EncodeError> {
    let failed = |error: png::EncodingError| EncodeError::new("PNG", error.to_string());
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, sheet.width, sheet.height);
    encoder.set_depth(BitDepth::Eight);
    let data = match sheet.palette() {
        Some((colours, indices)) => {
            let palette = colours.iter().flat_map(|colour| {
                let [blue, green, red, _] = colour.to_le_bytes();
                [red, green, blue]
            });
            encoder.set_color(PngColor::Indexed);
            encoder.set_palette(Cow::Owned(palette.collect()));
            encoder.set_compression(Compression::Balanced);
            encoder.set_filter(Filter::NoFilter);
            indices
        }
        None => {
            encoder.set_color(PngColor::Rgb);
            encoder.set_compression(Compression::Fast);
            encoder.set_filter(Filter::Paeth);
            sheet.rgb()
        }
    };
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&data).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

fn roughly(sheet: &Sheet, quality: u8) -> Result<Vec<u8>, EncodeError> {
    let failed =
        |error: jpeg_encoder::EncodingError| EncodeError { format: "JPEG", reason: error.to_string() };
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new(&mut bytes, quality);
    // Neighbouring blocks of an atlas have nothing to do with each other, and a block has no odd edges: colours may be shared by four
    // pixels.
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.encode(&sheet.rgb(), sheet.width as u16, sheet.height as u16, JpegColor::Rgb).map_err(failed)?;
    Ok(bytes)
}
