use super::*;
use pixfleet_collective::{Backend, CollectiveError, Group, GroupConfig, HashStore, RendezvousStore};
use std::sync::Arc;

#[test]
fn what_is_asked_of_a_generation_is_asked_of_no_other() {
    let switches = Switches::new();
    let [old, new] = [3, 4].map(Generation);
    switches.finish(new);
    switches.finish(old);
    assert!(switches.finishes(new) && !switches.finishes(old), "a late word about an old generation changes nothing");
}

#[test]
fn the_newest_order_is_held_until_it_is_withdrawn() {
    let switches = Switches::new();
    let prepared = |generation| Prepared { from: Generation(3), generation: Generation(generation), form: None };
    switches.hold(prepared(4));
    switches.hold(prepared(5));
    assert_eq!(switches.held_in(Generation(3)), Some(prepared(5)));
    assert_eq!(switches.held_in(Generation(4)), None, "it is for those who train in another");
    switches.withdraw(Generation(4));
    assert_eq!(switches.held_in(Generation(3)), Some(prepared(5)));
    switches.withdraw(Generation(5));
    assert_eq!(switches.held_in(Generation(3)), None);
}

/// Two ranks; the first one's group is armed with `switches` before it forms.
fn pair(generation: u64, switches: &Switches) -> [Result<(), CollectiveError>; 2] {
    let store: Arc<dyn RendezvousStore> = Arc::new(HashStore::new());
    let meet = |rank: u32, switches: Option<&Switches>| {
        let abort = AbortHandle::new();
        if let Some(switches) = switches {
            switches.arm(Generation(generation), abort.clone());
        }
        let timeout = std::time::Duration::from_secs(5);
        let config = GroupConfig { timeout, ..GroupConfig::loopback(rank, 2, generation) };
        Group::form(Backend::Gloo, Arc::clone(&store), config, &abort)?.barrier()
    };
    std::thread::scope(|scope| {
        let ranks = [scope.spawn(|| meet(0, Some(switches))), scope.spawn(|| meet(1, None))];
        ranks.map(|rank| rank.join().expect("no panic"))
    })
}

#[test]
fn an_end_reaches_the_group_of_its_generation_even_if_that_forms_later() {
    let switches = Switches::new();
    switches.end(Generation(3));
    assert!(switches.is_over(Generation(3)) && !switches.is_over(Generation(4)));
    let [aborted, alone] = pair(3, &switches);
    assert!(matches!(aborted, Err(CollectiveError::Aborted { .. })), "{aborted:?}");
    assert!(alone.is_err(), "nobody came to the other");
    switches.disarm();
    assert!(matches!(pair(4, &switches), [Ok(()), Ok(())]));
}

#[tokio::test]
async fn whoever_waits_for_the_end_of_a_generation_is_woken() {
    let switches = Arc::new(Switches::new());
    let waiting = tokio::spawn({
        let switches = Arc::clone(&switches);
        async move { switches.until_over(Generation(3)).await }
    });
    switches.end(Generation(3));
    waiting.await.expect("woken");
}
