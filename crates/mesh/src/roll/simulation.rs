//! Several nodes that let others in, take others out, and tell each other of it in any order.

use fastrand::Rng;

use super::*;

const MESH: MeshId = MeshId([9; 16]);

fn key(number: u8) -> NodeKey {
    NodeKey::from_seed([number; 32])
}

fn id(number: u8) -> NodeId {
    key(number).id()
}

fn roll_of(members: &[u8]) -> Roll {
    let mut roll = Roll::found(MESH, &key(members[0]));
    members[1..].iter().for_each(|member| roll.admit(&key(members[0]), id(*member)).unwrap());
    roll
}

fn members(roll: &Roll) -> BTreeSet<NodeId> {
    roll.members().map(|(node, _)| node).collect()
}

#[test]
fn who_was_let_in_belongs_to_it_for_all() {
    let mut one = roll_of(&[1]);
    one.admit(&key(1), id(2)).unwrap();
    let mut two = Roll::joined(id(2), id(1), one.records()).unwrap();
    two.admit(&key(2), id(3)).unwrap();
    assert_eq!(one.admit(&key(4), id(5)), Err(RollError::NoMember(id(4))));
    assert!(one.merge(id(2), &two.records()).unwrap().changed);
    assert_eq!((members(&one), one.digest()), ([1, 2, 3].map(id).into(), two.digest()));
    assert_eq!(one.merge(id(2), &two.records()), Ok(Merged::default()));
    assert_eq!(Roll::load(id(1), one.records()).unwrap().digest(), one.digest());
    assert_eq!(Roll::load(id(4), one.records()).unwrap_err(), RollError::NoMember(id(4)));
}

#[test]
fn who_is_removed_is_out_and_lets_nobody_in_any_more() {
    let mut one = roll_of(&[1, 2]);
    let mut two = Roll::joined(id(2), id(1), one.records()).unwrap();
    two.admit(&key(2), id(3)).unwrap();
    one.merge(id(2), &two.records()).unwrap();
    // Behind the back of the one who removes it.
    two.admit(&key(2), id(4)).unwrap();
    one.remove(&key(1), id(2)).unwrap();
    assert_eq!(members(&one), [1, 3].map(id).into(), "the third was let in before");
    assert_eq!(one.merge(id(2), &two.records()), Err(RollError::NoMember(id(2))));
    // One who heard of the fourth and not of the removal.
    let mut three = Roll::joined(id(3), id(2), two.records()).unwrap();
    let told = three.merge(id(1), &one.records()).unwrap();
    assert!(told.changed);
    assert_eq!((members(&three), three.digest()), ([1, 3].map(id).into(), one.digest()));
    // And the other way round: who was let in by it is refused.
    let told = one.merge(id(3), &two.records()).unwrap();
    assert_eq!(told.refused, [RollError::SignedByStranger { node: id(4), by: id(2) }]);
    assert!(!told.changed);
    // It cannot sign itself in again, others can.
    let mut returned = Roll::empty(MESH);
    returned.count(Entry::sign(&key(2), MESH, id(2), 9, Standing::Member));
    one.merge(id(3), &returned.records()).unwrap();
    assert!(!one.is_member(id(2)));
    one.admit(&key(1), id(2)).unwrap();
    assert!(one.is_member(id(2)));
    assert_eq!(one.remove(&key(1), id(1)), Err(RollError::Oneself));
}

#[test]
fn who_was_away_for_long_follows_how_others_came_to_sign() {
    let mut away = roll_of(&[1, 2]);
    let mut roll = away.clone();
    for number in 2..9 {
        roll.admit(&key(number), id(number + 1)).unwrap();
        roll.remove(&key(number), id(number - 1)).unwrap();
    }
    assert_eq!(members(&roll), [8, 9].map(id).into());
    // From the last one that both know.
    assert!(away.merge(id(2), &roll.records()).unwrap().changed);
    assert_eq!(away.digest(), roll.digest());
}

#[test]
fn a_record_that_was_tampered_with_is_refused_and_the_others_count() {
    let mut one = roll_of(&[1, 2]);
    let mut two = one.clone();
    two.admit(&key(2), id(3)).unwrap();
    two.admit(&key(2), id(4)).unwrap();
    let mut records = two.records();
    let at = records.entries.iter().position(|entry| entry.node == id(3)).unwrap();
    records.entries[at].signature[5] ^= 1;
    let merged = one.merge(id(2), &records).unwrap();
    assert_eq!(merged, Merged { changed: true, refused: vec![RollError::BadSignature(id(3))] });
    assert_eq!(members(&one), [1, 2, 4].map(id).into());
    let other = Records { mesh: MeshId([1; 16]), ..records.clone() };
    assert_eq!(one.merge(id(2), &other), Err(RollError::OtherMesh));
    let many = Records { entries: vec![records.entries[at].clone(); MOST_ENTRIES + 1], ..records };
    assert_eq!(one.merge(id(2), &many), Err(RollError::TooMany));
}

#[test]
fn whatever_the_order_in_which_it_is_told_all_come_to_agree() {
    for seed in 0..150 {
        let mut random = Rng::with_seed(seed);
        let mut rolls: BTreeMap<u8, Roll> = [1, 2, 3].map(|number| (number, roll_of(&[1, 2, 3]))).into();
        let (mut next, mut removed) = (4, BTreeSet::new());
        for _ in 0..random.u32(5..25) {
            let numbers: Vec<u8> = rolls.keys().copied().collect();
            let who = numbers[random.usize(0..numbers.len())];
            match random.u8(0..10) {
                0..=1 => {
                    if rolls[&who].is_member(id(who))
                        && rolls.get_mut(&who).unwrap().admit(&key(who), id(next)).is_ok()
                    {
                        let joined = Roll::joined(id(next), id(who), rolls[&who].records()).unwrap();
                        rolls.insert(next, joined);
                        next += 1;
                    }
                }
                2 => {
                    // Only one does, so that no two remove each other, and what the removed one signed is known to it.
                    let whom = numbers[random.usize(0..numbers.len())];
                    if whom != 1 && rolls[&1].is_member(id(whom)) {
                        let theirs = rolls[&whom].records();
                        let _ = rolls.get_mut(&1).unwrap().merge(id(whom), &theirs);
                        rolls.get_mut(&1).unwrap().remove(&key(1), id(whom)).unwrap();
                        rolls.remove(&whom);
                        removed.insert(id(whom));
                    }
                }
                _ => {
                    let (from, to) = (who, numbers[random.usize(0..numbers.len())]);
                    let records = rolls[&from].records();
                    let _ = rolls.get_mut(&to).unwrap().merge(id(from), &records);
                }
            }
        }
        let numbers: Vec<u8> = rolls.keys().copied().collect();
        for _ in 0..3 {
            for (from, to) in numbers.iter().flat_map(|from| numbers.iter().map(move |to| (*from, *to))) {
                let records = rolls[&from].records();
                let _ = rolls.get_mut(&to).unwrap().merge(id(from), &records);
            }
        }
        for (number, roll) in &rolls {
            assert_eq!(members(roll), members(&rolls[&1]), "{number}, seed {seed}");
            assert_eq!(roll.digest(), rolls[&1].digest(), "{number}, seed {seed}");
            assert_eq!(members(roll).intersection(&removed).next(), None, "seed {seed}");
            assert!(roll.is_member(id(*number)), "{number}, seed {seed}");
        }
    }
}
