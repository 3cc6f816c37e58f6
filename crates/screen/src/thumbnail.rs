//! A small picture of a screen, for lists.

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use crate::{EncodeError, Picture};

const QUALITY: u8 = 75;

/// The picture as a JPEG that is at most `width` pixels wide; each of its pixels is the mean of those it stands for.
///
/// # Errors
/// [`EncodeError`].
pub fn thumbnail(picture: &Picture, width: u32) -> Result<Vec<u8>, EncodeError> {
    let step = picture.width().div_ceil(width.max(1)).max(1);
    let (columns, rows) = (picture.width() / step, (picture.height() / step).max(1));
    let mut bytes = Vec::with_capacity((columns * rows * 3) as usize);
    for row in 0..rows {
        for column in 0..columns {
            bytes.extend(mean(picture, column * step, row * step, step));
        }
    }
    let failed = |error: jpeg_encoder::EncodingError| EncodeError::new("JPEG", error.to_string());
    let mut jpeg = Vec::new();
    let mut encoder = Encoder::new(&mut jpeg, QUALITY);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.encode(&bytes, columns as u16, rows as u16, ColorType::Rgb).map_err(failed)?;
    Ok(jpeg)
}

/// Red, green and blue of a square, as far as it is in the picture.
fn mean(picture: &Picture, x: u32, y: u32, side: u32) -> [u8; 3] {
    let mut sums = [0_u32; 3];
    let (width, height) = (side.min(picture.width() - x), side.min(picture.height() - y));
    for row in y..y + height {
        for pixel in picture.row(x, row, width) {
            let [blue, green, red, _] = pixel.to_le_bytes();
            sums.iter_mut().zip([red, green, blue]).for_each(|(sum, part)| *sum += u32::from(part));
        }
    }
    sums.map(|sum| (sum / (width * height)) as u8)
}

#[cfg(test)]
mod tests {
    use zune_jpeg::JpegDecoder;

    use super::*;

    #[test]
    fn it_is_small_and_looks_like_it() {
        for (width, height, small) in
            [(1280, 720, (320, 180)), (640, 480, (320, 240)), (300, 200, (300, 200)), (3, 1, (3, 1))]
        {
            let mut picture = Picture::new(width, height);
            for y in 0..height {
                picture.row_mut(0, y, width).fill(if y < height / 2 { 0xff_0000 } else { 0x00_00ff });
            }
            let jpeg = thumbnail(&picture, 320).unwrap();
            let mut decoder = JpegDecoder::new(std::io::Cursor::new(&jpeg));
            let pixels = decoder.decode().unwrap();
            assert_eq!(decoder.dimensions(), Some((small.0, small.1)));
            if height > 100 {
                let (first, last) = (&pixels[..3], &pixels[pixels.len() - 3..]);
                assert!(
                    first[0] > 200 && first[2] < 60 && last[2] > 200 && last[0] < 60,
                    "{first:?} {last:?}"
                );
            }
        }
    }
}
