//! [`Tally`]: how many there are of each kind now, for all workers together.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts what is here, by its key. What is not here takes no room.
#[derive(Debug)]
pub struct Tally<K> {
    /// Each key is in the one that its hash says, so that workers seldom wait for each other.
    shards: [Mutex<HashMap<K, usize>>; SHARDS],
    hasher: RandomState,
}

const SHARDS: usize = 32;

/// One that is counted until it is dropped.
#[derive(Debug)]
pub struct Counted<K: Eq + Hash> {
    tally: Arc<Tally<K>>,
    key: K,
}

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::default(),
        }
    }
}

impl<K: Eq + Hash + Clone> Tally<K> {
    /// Counts one more of `key`; `None` if there are `most` already.
    pub fn join(self: &Arc<Self>, key: K, most: usize) -> Option<Counted<K>> {
        let mut shard = self.shard(&key);
        let count = shard.get(&key).copied().unwrap_or_default();
        if count >= most {
            return None;
        }
        shard.insert(key.clone(), count + 1);
        let tally = Arc::clone(self);
        Some(Counted { tally, key })
    }
}

impl<K: Eq + Hash> Tally<K> {
    fn shard(&self, key: &K) -> MutexGuard<'_, HashMap<K, usize>> {
        let hash = self.hasher.hash_one(key);
        let place = usize::try_from(hash % SHARDS as u64).unwrap_or_default();
        self.shards[place]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        let is_empty = |shard: &Mutex<HashMap<K, usize>>| shard.lock().unwrap().is_empty();
        self.shards.iter().all(is_empty)
    }
}

impl<K: Eq + Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut shard = self.tally.shard(&self.key);
        if let Some(count) = shard.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&self.key);
            }
        }
    }
}
