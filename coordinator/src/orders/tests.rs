use super::*;
use pixfleet_cluster::Step;

#[test]
fn a_worker_that_does_not_read_and_one_that_is_gone() {
    let order = || Order::Recorded { through: Step(1) };
    let (orders, read) = mpsc::channel(1);
    assert_eq!(give(&orders, order()), Ok(()));
    assert_eq!(give(&orders, order()), Err(Unsent::Full));
    drop(read);
    assert_eq!(give(&orders, order()), Err(Unsent::Closed));
}
