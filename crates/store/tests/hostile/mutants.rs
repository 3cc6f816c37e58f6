//! Inputs made of other inputs, edit by edit: what flips of single bytes would take long to find.

use super::dice::Dice;
use super::script::{Edit, NUMBERS, Op, Script, from_end};

/// Something like `input`, but for one to three changes.
pub(crate) fn mutant(input: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut script = Script::decode(input);
    for _ in 0..1 + dice.roll(3) {
        change(&mut script, dice);
    }
    script.encode()
}

/// What libFuzzer's mutator is: half of the inputs change byte by byte, as it knows best, and half edit by edit.
#[allow(dead_code, reason = "for fuzzers only")]
pub(crate) fn mutate(
    data: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
    bytewise: fn(&mut [u8], usize, usize) -> usize,
) -> usize {
    let mut dice = Dice(u64::from(seed));
    if dice.roll(2) == 0 {
        return bytewise(data, size, max_size);
    }
    let made = mutant(&data[..size], &mut dice);
    let len = made.len().min(max_size);
    data[..len].copy_from_slice(&made[..len]);
    len
}

fn change(script: &mut Script, dice: &mut Dice) {
    let count = script.edits.len();
    if count == 0 || dice.roll(3) == 0 {
        let edit = any_edit(dice);
        return script.edits.insert(dice.roll(count + 1), edit);
    }
    let at = dice.roll(count);
    let edit = &mut script.edits[at];
    match dice.roll(10) {
        0 => edit.file = dice.next() as u8,
        1 => edit.layer = dice.roll(6) as u8,
        2 => edit.op = dice.pick(&Op::ALL),
        3 => edit.value = any_value(dice),
        4 => edit.part = dice.roll(8) as u8,
        5 => edit.at = any_place(dice),
        6 => edit.at = edit.at.wrapping_add(dice.pick(&[1, 8, 32, u32::MAX])) & 0xff_ffff,
        7 => edit.data = any_data(dice),
        8 => drop(script.edits.remove(at)),
        _ => script.flags ^= 1 << dice.roll(2),
    }
}

fn any_edit(dice: &mut Dice) -> Edit {
    Edit {
        file: dice.next() as u8,
        layer: dice.roll(6) as u8,
        op: dice.pick(&Op::ALL),
        value: any_value(dice),
        part: dice.roll(8) as u8,
        at: any_place(dice),
        data: any_data(dice),
    }
}

fn any_value(dice: &mut Dice) -> u16 {
    (dice.roll(4) << 8 | dice.roll(NUMBERS.len())) as u16
}

/// Most of what matters is near a beginning or an end.
fn any_place(dice: &mut Dice) -> u32 {
    let (near, anywhere) = (dice.roll(100) as u32, dice.roll(1 << 13) as u32);
    dice.pick(&[near, from_end(near), anywhere])
}

fn any_data(dice: &mut Dice) -> Vec<u8> {
    let number = dice.pick(&NUMBERS).to_le_bytes();
    let noise: Vec<u8> = (0..dice.roll(40)).map(|_| dice.next() as u8).collect();
    match dice.roll(4) {
        0 => number.to_vec(),
        1 => number[..4].to_vec(),
        2 => vec![0; noise.len()],
        _ => noise,
    }
}
