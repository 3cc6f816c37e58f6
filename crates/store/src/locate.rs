//! Where many pages are: what [`Packs::find`] says of each, in a fifth of the time.
//!
//! Nearly every page may be in one place only. These are taken in the order in which they lie: each pack is asked for once,
//! each piece of its names read once. What is left, because it may be in several places or in none, is looked for by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use watari_types::PageHash;

use crate::error::Error;
use crate::index::Known;
use crate::names::per_piece;
use crate::packs::{Packs, Place};
use crate::store::Store;

/// A page that is wanted, and where it is.
pub(crate) struct Wanted {
    pub(crate) place: Place,
    pub(crate) number: u32,
    pub(crate) name: PageHash,
}

/// The only place where a page may be.
struct Guess {
    /// Which of the packs that were known.
    pack: u32,
    position: u32,
    number: u32,
    name: PageHash,
}

impl Wanted {
    fn order(&self) -> impl Ord + use<> {
        (self.place.frame_key(), self.number)
    }
}

impl Store {
    /// Where these pages are, those of a frame one after the other, and there by number. Zero pages are left out.
    ///
    /// # Errors
    /// One is nowhere.
    pub(crate) fn locate(&self, pages: impl Iterator<Item = (u32, PageHash)>) -> Result<Vec<Wanted>, Error> {
        let mut pages: Vec<_> = pages.filter(|(_, page)| !page.is_zero_page()).collect();
        let mut wanted = self.packs().find_all(&mut pages);
        let mut refreshed = false;
        for (number, name) in &pages {
            let mut place = self.find(name);
            if place.is_none() && !std::mem::replace(&mut refreshed, true) {
                self.refresh()?;
                place = self.find(name);
            }
            let place = place.ok_or_else(|| self.missing(name))?;
            wanted.push(Wanted { place, number: *number, name: *name });
        }
        if !pages.is_empty() {
            wanted.sort_by_key(Wanted::order);
        }
        Ok(wanted)
    }
}

impl Packs {
    /// Takes those out of `pages` that are in the only place where they may be.
    fn find_all(&self, pages: &mut Vec<(u32, PageHash)>) -> Vec<Wanted> {
        let (known, guesses) = self.guess(pages);
        let mut by_pack: BTreeMap<_, _> = guesses
            .chunk_by(|a, b| a.pack == b.pack)
            .map(|guesses| (known[guesses[0].pack as usize].id, guesses))
            .collect();
        let mut wanted = Vec::with_capacity(guesses.len());
        while let Some((_, guesses)) = by_pack.pop_first() {
            let begins = wanted.len();
            self.confirm(&known[guesses[0].pack as usize], guesses, &mut wanted, pages);
            wanted[begins..].sort_unstable_by_key(|w: &Wanted| (w.place.frame, w.number));
        }
        wanted
    }

    /// Takes those out of `pages` that may be in one place only; all packs, and these places as they lie in them.
    fn guess(&self, pages: &mut Vec<(u32, PageHash)>) -> (Vec<Arc<Known>>, Vec<Guess>) {
        let index = self.index();
        let mut guesses = Vec::with_capacity(pages.len());
        pages.retain(|(number, name)| {
            let only = index.only_place(name);
            let guess = |(pack, position)| Guess { pack, position, number: *number, name: *name };
            guesses.extend(only.map(guess));
            only.is_none()
        });
        guesses.sort_unstable_by_key(|guess| u64::from(guess.pack) << 32 | u64::from(guess.position));
        (index.packs().to_vec(), guesses)
    }

    /// Whether the pages are where they may be in a pack: they become `wanted`, the others go to `rest`.
    fn confirm(
        &self,
        known: &Known,
        guesses: &[Guess],
        wanted: &mut Vec<Wanted>,
        rest: &mut Vec<(u32, PageHash)>,
    ) {
        let Ok(Some(pack)) = self.with(known, |pack| Ok(Arc::clone(pack))) else {
            rest.extend(guesses.iter().map(|guess| (guess.number, guess.name)));
            return;
        };
        let per_piece = per_piece(&pack);
        for guesses in guesses.chunk_by(|a, b| a.position / per_piece == b.position / per_piece) {
            let first = guesses[0].position / per_piece * per_piece;
            let names = self.with(known, |pack| self.names().piece(pack, first)).ok().flatten();
            for Guess { position, number, name, .. } in guesses {
                let found = names.as_ref().and_then(|names| names.get((position - first) as usize));
                if found == Some(&name.0) {
                    wanted.push(Wanted { place: Place::of(&pack, *position), number: *number, name: *name });
                } else {
                    rest.push((*number, *name));
                }
            }
        }
    }
}
