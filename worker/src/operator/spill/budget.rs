//! How much memory the keyed state of a worker may take, and who has to give some back.
//!
//! Shared by the tasks of a worker. A task says at each barrier how much it holds; when all together hold more than is allowed, those that hold more than
//! an equal share go down to three quarters of it, or by as much as brings the sum there. There is always one of those, so the sum comes down. What comes
//! between two barriers has room in memory all the same, and counts at the next. What is on disk is counted, too, and not limited. Cannot fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What all tasks may hold together, and do.
#[derive(Debug)]
pub struct StateBudget {
    bytes_limit: usize,
    held_bytes: AtomicUsize,
    disk_bytes: AtomicU64,
    task_count: AtomicUsize,
}

/// One task's part in it; leaves with it.
#[derive(Debug)]
pub struct MemoryShare {
    budget: Arc<StateBudget>,
    held_bytes: AtomicUsize,
    disk_bytes: AtomicU64,
}

impl StateBudget {
    /// So many bytes; `usize::MAX` for no limit.
    pub fn new(bytes_limit: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes_limit,
            held_bytes: AtomicUsize::new(0),
            disk_bytes: AtomicU64::new(0),
            task_count: AtomicUsize::new(0),
        })
    }

    /// Another task.
    pub fn join(self: &Arc<Self>) -> MemoryShare {
        self.task_count.fetch_add(1, Ordering::Relaxed);
        MemoryShare {
            budget: Arc::clone(self),
            held_bytes: AtomicUsize::new(0),
            disk_bytes: AtomicU64::new(0),
        }
    }

    /// What all tasks held when they last said so.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Ordering::Relaxed) as u64
    }

    /// What they had on disk then.
    pub fn disk_bytes(&self) -> u64 {
        self.disk_bytes.load(Ordering::Relaxed)
    }

    /// What they may hold; `None` for no limit.
    pub fn bytes_limit(&self) -> Option<u64> {
        (self.bytes_limit < usize::MAX).then_some(self.bytes_limit as u64)
    }
}

impl MemoryShare {
    /// The task holds so many bytes now; how many of them have to go.
    pub fn note_held(&self, held_bytes: usize) -> usize {
        let earlier = self.held_bytes.swap(held_bytes, Ordering::Relaxed);
        let all = &self.budget.held_bytes;
        all.fetch_add(held_bytes, Ordering::Relaxed);
        let together = all.fetch_sub(earlier, Ordering::Relaxed) - earlier;
        let task_count = self.budget.task_count.load(Ordering::Relaxed);
        excess(held_bytes, together, task_count, self.budget.bytes_limit)
    }

    /// The task has so many bytes on disk now.
    pub fn note_disk(&self, disk_bytes: u64) {
        let earlier = self.disk_bytes.swap(disk_bytes, Ordering::Relaxed);
        let all = &self.budget.disk_bytes;
        all.fetch_add(disk_bytes, Ordering::Relaxed);
        all.fetch_sub(earlier, Ordering::Relaxed);
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.note_disk(0);
        let held_bytes = *self.held_bytes.get_mut();
        self.budget
            .held_bytes
            .fetch_sub(held_bytes, Ordering::Relaxed);
        self.budget.task_count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a task has to give back that holds `held_bytes` of `together`.
fn excess(held_bytes: usize, together: usize, task_count: usize, bytes_limit: usize) -> usize {
    let fair = bytes_limit / task_count.max(1);
    if together <= bytes_limit || held_bytes <= fair {
        return 0;
    }
    (held_bytes - fair / 4 * 3).min(together - bytes_limit / 4 * 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_may_take_what_others_do_not_need() {
        let budget = StateBudget::new(1_000);
        let (large, small) = (budget.join(), budget.join());
        assert_eq!(small.note_held(100), 0);
        assert_eq!(large.note_held(900), 0);
        assert_eq!(large.note_held(901), 1_001 - 750, "not more than has to go");
        assert_eq!(large.note_held(650), 0);
        assert_eq!(small.note_held(350), 0);
    }

    #[test]
    fn tasks_that_do_as_they_are_told_come_below_the_limit_together() {
        let budget = StateBudget::new(1_000);
        let shares: Vec<MemoryShare> = (0..4).map(|_| budget.join()).collect();
        let mut held = [700, 250, 260, 10];
        for _ in 0..3 {
            for (share, held) in shares.iter().zip(&mut held) {
                *held -= share.note_held(*held);
            }
        }
        for (share, held) in shares.iter().zip(held) {
            assert_eq!(share.note_held(held), 0);
        }
        assert!(held.iter().sum::<usize>() <= 1_000, "{held:?}");
        assert_eq!((held[1], held[3]), (250, 10));
    }

    #[test]
    fn what_a_task_held_is_free_when_it_has_gone() {
        let budget = StateBudget::new(1_000);
        let first = budget.join();
        assert_eq!(first.note_held(1_000), 0);
        drop(first);
        let second = budget.join();
        assert_eq!(second.note_held(1_000), 0);
        assert!(second.note_held(1_001) > 0);
    }
}
