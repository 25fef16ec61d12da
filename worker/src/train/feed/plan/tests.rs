use super::*;
use pixfleet_shards::row::ImageRow;

const ROW: usize = 100;

/// Rows (row group, row) that a step wants.
fn dealt(rows: &[(u32, u32)]) -> Vec<Dealt> {
    let id = |&(row_group, row): &(u32, u32)| SampleId { epoch: 0, row_group, row };
    rows.iter().map(|row| Dealt { position: 0, id: id(row) }).collect()
}

fn rows_of(read: &GroupRead) -> (u32, Vec<u32>) {
    (read.row_group, read.seats.iter().map(|seat| seat.row).collect())
}

/// The rows of `read`, all of them good and of [`ROW`] bytes.
fn answer(plan: &mut Plan, read: GroupRead) {
    let rows = read.seats.iter().map(|_| (Ok(ImageRow::default()), ROW)).collect();
    plan.arrived(read, rows);
}

fn next_step(plan: &mut Plan) -> Option<u64> {
    plan.next().map(|step| step.expect("nothing failed").step.0)
}

fn trouble() -> FeedError {
    FeedError::Stopped { step: 9 }
}

#[test]
fn the_earliest_steps_row_group_is_read_first_and_with_it_what_later_steps_want_of_it() {
    let mut plan = Plan::new(1 << 20, ROW);
    plan.admit(Step(5), dealt(&[(7, 1), (3, 2)]));
    plan.admit(Step(6), dealt(&[(1, 0), (7, 2)]));
    let reads: Vec<GroupRead> = std::iter::from_fn(|| plan.next_read()).collect();
    assert_eq!(reads.iter().map(rows_of).collect::<Vec<_>>(), [(3, vec![2]), (7, vec![1, 2]), (1, vec![0])]);
}

#[test]
fn a_row_group_is_read_by_one_read_at_a_time_and_what_is_wanted_meanwhile_gathers() {
    let mut plan = Plan::new(1 << 20, ROW);
    plan.admit(Step(0), dealt(&[(7, 1)]));
    let first = plan.next_read().expect("wanted");
    plan.admit(Step(1), dealt(&[(7, 3)]));
    plan.admit(Step(2), dealt(&[(7, 2), (8, 0)]));
    assert_eq!(plan.next_read().as_ref().map(rows_of), Some((8, vec![0])), "row group 7 is being read");
    assert_eq!(plan.next_read(), None);
    answer(&mut plan, first);
    assert_eq!(plan.next_read().as_ref().map(rows_of), Some((7, vec![3, 2])));
}

#[test]
fn steps_are_handed_on_in_order_with_their_rows_in_the_order_of_their_places() {
    let mut plan = Plan::new(1 << 20, ROW);
    plan.admit(Step(0), dealt(&[(7, 1), (8, 0)]));
    plan.admit(Step(1), dealt(&[(9, 4)]));
    let [seven, eight, nine] = std::array::from_fn(|_| plan.next_read().expect("wanted"));
    answer(&mut plan, nine);
    answer(&mut plan, seven);
    assert!(!plan.has_next(), "step 0 lacks a row, step 1 comes after it");
    let bad: RowRead = Err("a bad row".into());
    plan.arrived(eight, vec![(bad, 0)]);
    let step = plan.next().expect("complete").expect("nothing failed");
    let rows: Vec<(u32, bool)> = step.into_rows().map(|(dealt, row)| (dealt.id.row_group, row.is_ok())).collect();
    assert_eq!(rows, [(7, true), (8, false)]);
    assert_eq!(next_step(&mut plan), Some(1));
    assert!(plan.is_empty() && plan.is_idle() && plan.held_bytes() == 0);
}

#[test]
fn a_read_that_fails_fails_the_first_step_that_wanted_it_in_its_turn() {
    let mut plan = Plan::new(1 << 20, ROW);
    plan.admit(Step(0), dealt(&[(1, 0)]));
    plan.admit(Step(1), dealt(&[(2, 0)]));
    plan.admit(Step(2), dealt(&[(3, 0), (2, 1)]));
    let [one, two, three] = std::array::from_fn(|_| plan.next_read().expect("wanted"));
    plan.failed(&three, trouble());
    plan.failed(&two, trouble());
    assert!(!plan.has_next() && !plan.has_room(), "step 0 may still come, and none after those that are admitted");
    answer(&mut plan, one);
    assert_eq!(next_step(&mut plan), Some(0));
    assert!(plan.next().is_some_and(|step| step.is_err()));
    assert!(plan.next().is_none());
}

/// Plays a feed of steps of four rows that are read as soon as they are wanted: how many steps are ahead after each of
/// `steps` was handed on.
fn ahead(plan: &mut Plan, steps: u64) -> Vec<usize> {
    let mut admitted = 0;
    let play = |_| {
        while plan.has_room() {
            plan.admit(Step(admitted), dealt(&[(1, 0), (1, 1), (2, 0), (3, 0)]));
            admitted += 1;
        }
        while let Some(read) = plan.next_read() {
            answer(plan, read);
        }
        next_step(plan).expect("all is read");
        plan.steps.len()
    };
    (0..steps).map(play).collect()
}

#[test]
fn reading_goes_ahead_by_twice_as_much_each_time_up_to_the_bound() {
    let mut plan = Plan::new(40 * 4 * ROW, ROW);
    let ahead = ahead(&mut plan, 200);
    let peaks: Vec<usize> = ahead.windows(2).filter(|pair| pair[1] > pair[0]).map(|pair| pair[1]).collect();
    assert_eq!((ahead[0], &peaks[..3]), (9, &[19, 39, 39][..]), "{ahead:?}");
    assert!(ahead.iter().all(|&steps| steps < 40), "40 steps are the bound: {ahead:?}");
    assert!(ahead[60..].iter().all(|&steps| steps >= 20), "it is filled up when half of it is used: {ahead:?}");
    assert!(peaks.len() <= 1 + 200 / 19, "after the first time not step by step: {peaks:?}");
}

#[test]
fn one_step_is_read_ahead_however_small_the_bound() {
    let mut plan = Plan::new(1, ROW);
    assert_eq!(ahead(&mut plan, 5), [0; 5]);
}

#[test]
fn what_is_on_its_way_counts_by_what_rows_took_so_far() {
    let mut plan = Plan::new(400 * ROW, 1);
    let mut admitted = 0;
    let mut fill = |plan: &mut Plan| {
        while plan.has_room() {
            plan.admit(Step(admitted), dealt(&[(1, 0), (2, 0)]));
            admitted += 1;
        }
        plan.steps.len()
    };
    assert_eq!(fill(&mut plan), 50 * ROW, "a row is taken to have one byte");
    while let Some(read) = plan.next_read() {
        answer(&mut plan, read);
    }
    // Half of the room is used: it is filled up, and twice as large. The guess counts as a row, so one more may fit.
    for _ in 0..50 * ROW - 25 {
        next_step(&mut plan).expect("complete");
    }
    let steps = fill(&mut plan);
    assert!((100..=101).contains(&steps), "now they are known to have a hundred: {steps}");
}
