//! Trees on a real disk, and the folders they are in.

use std::ops::ControlFlow;

use millstream_common::blocking::ThreadPool;
use millstream_common::error::Kind;

use super::super::super::OperatorError;
use super::super::memory::MemoryDisk;
use super::*;

fn disk(root: &Path) -> SpillFolder {
    SpillFolder::new(root.to_owned(), 1 << 20, Arc::new(ThreadPool))
}

fn folders(root: &Path) -> usize {
    let entries = fs::read_dir(root).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let ours = names.filter(|name| name.to_string_lossy().starts_with(PROCESS_PREFIX));
    ours.count()
}

/// Forgotten at what the value says.
fn at_value(_: &[u8], value: &[u8]) -> i64 {
    i64::from_be_bytes(value.try_into().expect("eight bytes"))
}

fn key(number: u64) -> [u8; 16] {
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (u128::from(spread) << 64 | u128::from(number)).to_be_bytes()
}

fn add(tree: &mut dyn SpillTree, numbers: std::ops::Range<u64>, value: i64) {
    let mut keys: Vec<_> = numbers.map(key).collect();
    keys.sort_unstable();
    let mut run = tree.write().expect("a run");
    for key in keys {
        run.add(&key, &value.to_be_bytes()).expect("added");
    }
    run.finish().expect("written");
}

fn all(tree: &dyn SpillTree) -> Vec<(Vec<u8>, i64)> {
    let mut entries = Vec::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        entries.push((key.to_vec(), at_value(key, value)));
        ControlFlow::Continue(())
    };
    tree.scan(&[], None, &mut visit).expect("read");
    entries
}

fn get(tree: &dyn SpillTree, number: u64) -> Option<i64> {
    let mut found = None;
    let is_there = tree.get(&key(number), &mut |value| {
        found = Some(at_value(&[], value))
    });
    assert_eq!(is_there.expect("read"), found.is_some());
    found
}

#[test]
fn a_tree_on_disk_holds_what_one_in_memory_does() {
    let root = tempfile::tempdir().expect("a folder");
    let real = disk(root.path());
    let mut trees =
        [&real as &dyn SpillDisk, &MemoryDisk].map(|disk| disk.open(at_value).expect("a tree"));
    for tree in &mut trees {
        let tree = tree.as_mut();
        for run in 0..24 {
            let first = run * 700;
            add(tree, first..first + 1_000, run as i64);
            for number in (first..first + 100).step_by(3) {
                tree.remove(&key(number)).expect("removed");
            }
        }
        assert_eq!(get(tree, 0), None);
        assert_eq!(get(tree, 1), Some(0));
        // It came again with the run behind.
        assert_eq!(get(tree, 750), Some(1));
        assert_eq!(get(tree, 100_000), None);
    }
    let (real, memory) = (all(trees[0].as_ref()), all(trees[1].as_ref()));
    assert!(real.is_sorted());
    assert_eq!(real, memory);
    let (from, to) = (&real[5_000].0, &real[5_100].0);
    for tree in &trees {
        let mut shown = 0;
        let mut visit = |_: &[u8], _: &[u8]| {
            shown += 1;
            ControlFlow::Continue(())
        };
        tree.scan(from, Some(to), &mut visit).expect("read");
        assert_eq!(shown, 100);
        let mut first = Vec::new();
        let mut visit = |key: &[u8], _: &[u8]| {
            first.push(key.to_vec());
            ControlFlow::Break(())
        };
        tree.scan(from, None, &mut visit).expect("read");
        tree.scan(to, Some(from), &mut visit).expect("read");
        assert_eq!(first, std::slice::from_ref(from));
    }
}

#[test]
fn a_tree_is_read_while_its_runs_are_merged() {
    let root = tempfile::tempdir().expect("a folder");
    let mut tree = disk(root.path()).open(at_value).expect("a tree");
    for run in 0..50 {
        let first = run * 1_000;
        add(tree.as_mut(), first..first + 1_000, run as i64);
        for number in (0..first).step_by(61) {
            assert_eq!(get(tree.as_ref(), number), Some(number as i64 / 1_000));
        }
    }
    assert_eq!(all(tree.as_ref()).len(), 50_000);
}

#[test]
fn forgotten_entries_go_when_runs_are_merged_and_others_stay() {
    let root = tempfile::tempdir().expect("a folder");
    let mut tree = disk(root.path()).open(at_value).expect("a tree");
    for run in 0..60 {
        let first = run * 1_000;
        add(tree.as_mut(), first..first + 1_000, run as i64);
        tree.forget_below(run as i64 - 3).expect("told");
    }
    let held = tree.entry_count();
    assert!(held < 40_000, "{held}");
    for number in 57_000..60_000 {
        assert_eq!(get(tree.as_ref(), number), Some(number as i64 / 1_000));
    }
}

#[test]
fn files_go_when_everything_in_them_is_wanted_no_more() {
    let root = tempfile::tempdir().expect("a folder");
    let mut tree = disk(root.path()).open(at_value).expect("a tree");
    let key = |number: u64| number.to_be_bytes();
    for run in 0..6 {
        let mut written = tree.write().expect("a run");
        for number in run * 50_000..(run + 1) * 50_000 {
            written.add(&key(number), &[7; 8]).expect("added");
        }
        written.finish().expect("written");
    }
    let full = tree.disk_bytes();
    tree.drop_before(&key(200_000)).expect("told");
    let mut looks = 0;
    while tree.disk_bytes() > full / 2 {
        looks += 1;
        assert!(looks < 10_000_000, "{} of {full}", tree.disk_bytes());
        std::thread::yield_now();
    }
    let mut count = 0;
    let mut visit = |_: &[u8], _: &[u8]| {
        count += 1;
        ControlFlow::Continue(())
    };
    tree.scan(&key(200_000), None, &mut visit).expect("read");
    assert_eq!(count, 100_000);
}

#[test]
fn what_a_killed_process_left_is_removed_and_what_another_uses_is_not() {
    let root = tempfile::tempdir().expect("a folder");
    let killed = root.path().join("worker-killed");
    fs::create_dir_all(killed.join("tree-1")).expect("made");
    fs::write(killed.join("tree-1/rows"), "left").expect("written");
    let foreign = root.path().join("photos");
    fs::create_dir(&foreign).expect("made");
    let first = disk(root.path());
    let tree = first.open(at_value).expect("a tree");
    assert!(!killed.is_dir() && foreign.is_dir());
    let second = disk(root.path());
    second.prepare().expect("another");
    assert_eq!(folders(root.path()), 2);
    drop(second);
    assert_eq!(folders(root.path()), 1);
    drop((tree, first));
    // With the tree's thread.
    while folders(root.path()) > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_named_with_what_to_do() {
    let root = tempfile::tempdir().expect("a folder");
    let file = root.path().join("file");
    fs::write(&file, "").expect("written");
    let error = disk(&file).prepare().expect_err("a file");
    assert_eq!(OperatorError::from(error.clone()).kind(), Kind::External);
    let text = error.to_string();
    assert!(text.contains(&file.display().to_string()), "{text}");
    assert!(text.contains("--spill-folder"), "{text}");
}
