//! The operations against their definitions, and the reducer against serial training.

use crate::fleet::{Rank, on_every_rank};
use pixfleet_collective::{CollectiveError, Group, Reducer};
use tch::{Device, Kind, Tensor};

#[test]
fn operations_agree_with_their_definitions() {
    on_every_rank("operations::operations_agree_with_their_definitions", 1..=4, |rank| {
        let group = rank.join(1, rank.rank, rank.world);
        operations(&group);
        group.finish().unwrap();
    });
}

#[test]
fn the_reducer_sums_what_serial_training_sums() {
    on_every_rank("operations::the_reducer_sums_what_serial_training_sums", 1..=4, |rank| {
        let group = rank.join(1, rank.rank, rank.world);
        reducer(&group);
        group.finish().unwrap();
    });
}

#[test]
fn generations_follow_each_other_in_one_process() {
    on_every_rank("operations::generations_follow_each_other_in_one_process", [2], generations);
}

/// Element `i` of rank `rank`'s tensor.
fn value(rank: i64, i: i64) -> i64 {
    rank * 100 + i
}

fn own(rank: i64, shape: &[i64], kind: Kind, device: Device) -> Tensor {
    let count: i64 = shape.iter().product();
    let values: Vec<i64> = (0..count).map(|i| value(rank, i)).collect();
    Tensor::from_slice(&values).view(shape).to_kind(kind).to_device(device)
}

fn operations(group: &Group) {
    gathers(group);
    sums(group);
    copies(group);
    exchanges(group);
    let wrong = Tensor::zeros([i64::from(group.world()) + 1, 2], (Kind::Float, group.device()));
    assert!(matches!(group.reduce_scatter_sum(&wrong), Err(CollectiveError::Shape { .. })));
    group.barrier().unwrap();
}

fn gathers(group: &Group) {
    let (rank, world, device) = (i64::from(group.rank()), i64::from(group.world()), group.device());
    for kind in [Kind::Float, Kind::Double, Kind::Int64, Kind::Uint8, Kind::Half, Kind::BFloat16] {
        for shape in [vec![], vec![5], vec![2, 3], vec![0, 3]] {
            let all = group.all_gather(&own(rank, &shape, kind, device)).unwrap();
            let expected: Vec<Tensor> = (0..world).map(|other| own(other, &shape, kind, device)).collect();
            assert!(all.equal(&Tensor::stack(&expected, 0)), "{kind:?} {shape:?}");
        }
    }
    // A transposed view: same values, other strides.
    let view = own(rank, &[2, 3], Kind::Float, device).transpose(0, 1);
    let all = group.all_gather(&view).unwrap();
    assert_eq!(all.get(world - 1).double_value(&[1, 0]), value(world - 1, 1) as f64);

    // Uneven rows; rank 0 may have none.
    let rows: Vec<i64> = (0..world).map(|other| (other * 2) % 5).collect();
    let mine = own(rank, &[rows[group.rank() as usize], 2], Kind::Float, device).set_requires_grad(true);
    let all = group.all_gather_rows(&mine, &rows).unwrap();
    let expected: Vec<Tensor> =
        (0..world).zip(&rows).map(|(other, rows)| own(other, &[*rows, 2], Kind::Float, device)).collect();
    assert!(all.equal(&Tensor::cat(&expected, 0)));
    assert!(!all.requires_grad(), "no autograd edge crosses the network");
    let none = Tensor::zeros([0, 2], (Kind::Float, device));
    assert!(matches!(group.all_gather_rows(&none, &[]), Err(CollectiveError::Shape { .. })));
}

fn sums(group: &Group) {
    let (rank, world, device) = (i64::from(group.rank()), i64::from(group.world()), group.device());
    let total = |i: i64| (0..world).map(|other| value(other, i)).sum::<i64>();
    let mut tensor = own(rank, &[2, 3], Kind::Int64, device);
    group.all_reduce_sum(&mut tensor).unwrap();
    assert_eq!(Vec::<i64>::try_from(tensor.view(-1)).unwrap(), (0..6).map(total).collect::<Vec<_>>());

    let mut view = own(rank, &[2, 3], Kind::Int64, device).transpose(0, 1);
    group.all_reduce_sum(&mut view).unwrap();
    assert_eq!(view.int64_value(&[2, 1]), total(5));

    // Sums of fractions differ in their last bits by order; all ranks must have the same ones.
    let mut noisy = (own(rank, &[1000], Kind::Float, device) * 0.1).sin();
    group.all_reduce_sum(&mut noisy).unwrap();
    let all = group.all_gather(&noisy).unwrap();
    assert!((0..world).all(|other| all.get(other).equal(&noisy)));

    let input = own(rank, &[world, 4], Kind::Float, device);
    let slice = group.reduce_scatter_sum(&input).unwrap();
    let expected: Vec<f64> = (0..4).map(|i| total(rank * 4 + i) as f64).collect();
    assert_eq!(Vec::<f64>::try_from(slice.to_kind(Kind::Double)).unwrap(), expected);
}

fn copies(group: &Group) {
    let (rank, world, device) = (i64::from(group.rank()), group.world(), group.device());
    for source in 0..world {
        let mut tensor = own(rank, &[3], Kind::Float, device).set_requires_grad(true);
        group.broadcast(&mut tensor, source).unwrap();
        assert!(tensor.equal(&own(i64::from(source), &[3], Kind::Float, device)), "from {source}");
        let mut view = own(rank, &[2, 3], Kind::Float, device).transpose(0, 1);
        group.broadcast(&mut view, source).unwrap();
        assert_eq!(view.double_value(&[1, 0]), value(i64::from(source), 1) as f64);
    }
}

/// Rank `r` has `r + to + 1` numbers for rank `to`, which tell both.
fn exchanges(group: &Group) {
    let (rank, world, device) = (i64::from(group.rank()), i64::from(group.world()), group.device());
    let letter = |from: i64, to: i64| vec![(10 * from + to) as f32; (from + to + 1) as usize];
    let sent: Vec<f32> = (0..world).flat_map(|to| letter(rank, to)).collect();
    let counts: Vec<i64> = (0..world).map(|other| rank + other + 1).collect();
    let all = group.all_to_all(&Tensor::from_slice(&sent).to_device(device), &counts, &counts).unwrap();
    let expected: Vec<f32> = (0..world).flat_map(|from| letter(from, rank)).collect();
    assert_eq!(Vec::<f32>::try_from(all).unwrap(), expected);
    let wrong = Tensor::zeros([counts.iter().sum::<i64>() + 1], (Kind::Float, device));
    assert!(group.all_to_all(&wrong, &counts, &counts).is_err(), "more numbers than there are");

    let whole = Tensor::zeros([world * 2 + 2], (Kind::Float, device));
    group.all_gather_into(&mut whole.narrow(0, 1, world * 2), &own(rank, &[2], Kind::Float, device)).unwrap();
    for other in 0..world {
        assert_eq!(whole.double_value(&[2 + other * 2]), value(other, 1) as f64);
    }
    assert!(group.all_gather_into(&mut whole.narrow(0, 1, world), &own(rank, &[2], Kind::Float, device)).is_err());
}

/// A model of two layers whose second is over 1 MiB, so that there are several buckets.
struct Toy {
    params: Vec<(&'static str, Tensor)>,
}

impl Toy {
    fn new(device: Device) -> Self {
        let fill = |shape: &[i64]| {
            let count: i64 = shape.iter().product();
            (Tensor::arange(count, (Kind::Float, device)) * 0.7).sin().view(shape) * 0.05
        };
        let named = [("first", fill(&[8, 600])), ("bias", fill(&[600])), ("second", fill(&[600, 500]))];
        Self { params: named.into_iter().map(|(name, tensor)| (name, tensor.set_requires_grad(true))).collect() }
    }

    fn loss(&self, rank: i64, lane: i64) -> Tensor {
        let input = own(rank * 7 + lane, &[3, 8], Kind::Float, self.params[0].1.device()) * 0.01;
        (input.matmul(&self.params[0].1) + &self.params[1].1).relu().matmul(&self.params[2].1).square().mean(None)
    }

    fn reducer(&self, group: &Group) -> Reducer {
        Reducer::new(group, self.params.iter().map(|(name, tensor)| (*name, tensor))).unwrap()
    }

    fn take_grads(&mut self) -> Vec<Tensor> {
        let take = |(_, tensor): &mut (&'static str, Tensor)| {
            let mut grad = tensor.grad();
            let taken = grad.copy();
            let _ = grad.zero_();
            taken
        };
        self.params.iter_mut().map(take).collect()
    }

    /// The sum over ranks and lanes, computed alone.
    fn serial(&mut self, world: i64, lanes: i64) -> Vec<Tensor> {
        for rank in 0..world {
            (0..lanes).for_each(|lane| self.loss(rank, lane).backward());
        }
        self.take_grads()
    }
}

fn assert_close(found: &[Tensor], expected: &[Tensor], what: &str) {
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.allclose(expected, 1e-5, 1e-9, false), "{what}");
        assert!(expected.abs().max().double_value(&[]) > 0.0, "{what}: nothing to compare");
    }
}

fn reducer(group: &Group) {
    let (rank, world) = (i64::from(group.rank()), i64::from(group.world()));
    let mut toy = Toy::new(group.device());
    let expected: Vec<Vec<Tensor>> = (1..=3).map(|lanes| toy.serial(world, lanes)).collect();
    let mut reducer = toy.reducer(group);
    assert_eq!(reducer.buckets(), [vec![2], vec![1, 0]], "last parameters first, at least 1 MiB in the first bucket");
    for (lanes, expected) in (1..=3).zip(&expected) {
        for step in 0..3 {
            (0..lanes - 1).for_each(|lane| toy.loss(rank, lane).backward());
            reducer.prepare_for_backward().unwrap();
            toy.loss(rank, lanes - 1).backward();
            reducer.finish().unwrap();
            assert_close(&toy.take_grads(), expected, &format!("{lanes} lanes, step {step}"));
        }
    }
    // A parameter left out is named, not waited for.
    reducer.prepare_for_backward().unwrap();
    (toy.params[2].1.square().sum(Kind::Float)).backward();
    let error = reducer.finish().unwrap_err();
    assert!(matches!(&error, CollectiveError::Torch { source, .. } if !source.text().is_empty()), "{error}");
    drop(reducer);
    // Without a reducer gradients are this rank's alone.
    assert!(toy.params.iter().all(|(_, tensor)| !tensor.grad().defined()), "they went with the buckets");
    toy.loss(rank, 0).backward();
    let alone = toy.take_grads();
    toy.loss(rank, 0).backward();
    assert_close(&toy.take_grads(), &alone, "no hook is left");
    group.barrier().unwrap();
}

/// The same parameters under three groups and reducers, one after the other; one ends with no goodbye.
fn generations(rank: &Rank) {
    let mut toy = Toy::new(Device::Cpu);
    let expected = toy.serial(2, 1);
    for generation in 1..=3 {
        let group = rank.join(generation, (rank.rank + generation as u32) % 2, 2);
        assert_eq!(group.generation(), generation);
        let mut reducer = toy.reducer(&group);
        reducer.prepare_for_backward().unwrap();
        toy.loss(i64::from(group.rank()), 0).backward();
        reducer.finish().unwrap();
        assert_close(&toy.take_grads(), &expected, &format!("generation {generation}"));
        drop(reducer);
        group.finish().unwrap();
    }
}
