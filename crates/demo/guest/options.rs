//! Arguments of the form `key=value`.

use std::collections::HashMap;

/// The arguments given.
pub(crate) struct Options(HashMap<String, String>);

impl Options {
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Options, String> {
        let pair = |argument: String| match argument.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(format!("{argument:?} is not key=value")),
        };
        arguments.map(pair).collect::<Result<_, _>>().map(Options)
    }

    /// A number, or `default` if it is not given.
    pub(crate) fn number(&self, key: &str, default: f64) -> Result<f64, String> {
        let Some(text) = self.0.get(key) else { return Ok(default) };
        let number: Option<f64> = text.parse().ok();
        number.filter(|n| n.is_finite() && *n >= 0.0).ok_or_else(|| format!("{key}={text} is not a number"))
    }

    /// A size in bytes: `65536`, `64K`, `64M`, `1G`.
    pub(crate) fn bytes(&self, key: &str) -> Result<Option<u64>, String> {
        let Some(text) = self.0.get(key) else { return Ok(None) };
        let digits = text.trim_end_matches(['K', 'M', 'G']);
        let shift = match &text[digits.len()..] {
            "" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            _ => 64,
        };
        let number: Option<u64> = digits.parse().ok();
        let bytes = number.and_then(|n| n.checked_mul(1u64.checked_shl(shift)?));
        bytes.map(Some).ok_or_else(|| format!("{key}={text} is not a size"))
    }
}
