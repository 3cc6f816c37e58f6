//! Loss of power at every moment: the engine runs over a medium that keeps, loses, tears and reorders whatever was not
//! synced, and is opened again from what may be left after each single event.

mod life;
mod medium;

use life::Life;

/// One run after the other: some lives of a disk each, every event in them a cut, each cut in several ways.
fn cut_everywhere(seeds: std::ops::Range<u64>) -> usize {
    let mut cuts = 0;
    for seed in seeds {
        let mut life = Life::first(seed);
        for _ in 0..3 {
            life.run();
            cuts += life.cut_at_every_event();
            life = life.next();
        }
    }
    cuts
}

/// How many disks a test goes through; `WATARI_POWER_CUTS` is a multiple of it.
fn seeds() -> u64 {
    let times = std::env::var("WATARI_POWER_CUTS").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    20 * times
}

#[test]
fn after_a_loss_of_power_at_any_moment_the_disk_holds_every_flushed_write_and_knows_what_differs() {
    let cuts = cut_everywhere(0..seeds());
    println!("{cuts} cuts");
    assert!(cuts > 30_000, "{cuts} cuts are too few to say anything");
}
