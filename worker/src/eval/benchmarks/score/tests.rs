//! Every metric against the published script's formula, written down plainly, over features whose answers are known.

use super::*;

/// Features that have no two equal similarities: angles from a golden-ratio sequence, on the unit circle in three planes.
fn features(n: usize, seed: f64) -> Vec<Vec<f32>> {
    let at = |i: usize, of: f64| ((i as f64 + 1.0) * of + seed).sin() as f32;
    (0..n).map(|i| unit([at(i, 1.618), at(i, 2.414), at(i, 3.303)])).collect()
}

fn unit(v: [f32; 3]) -> Vec<f32> {
    let norm = v.iter().map(|x| x * x).sum::<f32>().sqrt();
    v.iter().map(|x| x / norm).collect()
}

fn tensor(rows: &[Vec<f32>]) -> Tensor {
    Tensor::from_slice(&rows.concat()).reshape([rows.len() as i64, -1])
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// As `score.topk(k)`: the numbers of the k largest.
fn topk(row: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&a, &b| row[b].partial_cmp(&row[a]).expect("numbers"));
    order.truncate(k);
    order
}

fn near(found: f64, wanted: f64) {
    assert!((found - wanted).abs() < 1e-9, "{found}, expected {wanted}");
}

#[test]
fn classes_are_averaged_as_alphaclip_and_as_fgclip_do() {
    let (items, classes) = (features(400, 0.3), features(12, 1.1));
    // Classes of very different sizes, and one without any item.
    let own: Vec<usize> = (0..400).map(|i| if i % 3 == 0 { 0 } else { (i * i) % 11 }).collect();
    let mut by_class = std::collections::HashMap::<usize, [u32; 3]>::new();
    let (mut right, mut in_five) = (0, 0);
    for (item, &target) in items.iter().zip(&own) {
        let scores: Vec<f32> = classes.iter().map(|class| dot(item, class)).collect();
        let count = by_class.entry(target).or_insert([0, 0, 0]);
        count[0] += 1;
        if topk(&scores, 1)[0] == target {
            count[1] += 1;
            right += 1;
        }
        if topk(&scores, 5).contains(&target) {
            count[2] += 1;
            in_five += 1;
        }
    }
    let acc =
        |k: usize| by_class.values().map(|v| f64::from(v[k]) / f64::from(v[0])).sum::<f64>() / by_class.len() as f64;
    let of = |average| classify(&tensor(&items), &tensor(&classes), &own, (average, Ties::Share)).expect("scores");
    let [top1, top5] = of(Average::Class);
    near(top1.value, acc(1));
    near(top5.value, acc(2));
    let [micro1, micro5] = of(Average::Micro);
    near(micro1.value, f64::from(right) / 400.0);
    near(micro5.value, f64::from(in_five) / 400.0);
    assert!((top1.value - micro1.value).abs() > 1e-3, "the two averages are two numbers");
    near(top1.chance, 1.0 / 12.0);
}

#[test]
fn averages_of_a_hand_made_set_are_known() {
    let basis = [vec![1.0, 0.0], vec![0.0, 1.0]];
    // Three of class 0, two of them right; one of class 1, wrong.
    let items = [vec![1.0, 0.0], vec![1.0, 0.1], vec![0.0, 1.0], vec![1.0, 0.0]];
    let of = |average| classify(&tensor(&items), &tensor(&basis), &[0, 0, 0, 1], (average, Ties::Share));
    near(of(Average::Class).expect("scores")[0].value, 1.0 / 3.0);
    near(of(Average::Micro).expect("scores")[0].value, 0.5);
    near(of(Average::Micro).expect("scores")[1].value, 1.0);
}

#[test]
fn the_true_text_is_chosen_as_fgovd_does() {
    let regions = features(150, 0.7);
    // Two to twelve texts a region, the true one first.
    let counts: Vec<usize> = (0..150).map(|i| 2 + i * 7 % 11).collect();
    let owners: Vec<usize> = counts.iter().enumerate().flat_map(|(i, &n)| vec![i; n]).collect();
    let mut texts = features(owners.len(), 2.9);
    for start in counts.iter().scan(0, |at, n| Some(std::mem::replace(at, *at + n))).step_by(2) {
        texts[start] = regions[owners[start]].clone();
    }
    let (mut right, mut start) = (0, 0);
    for (region, n) in regions.iter().zip(&counts) {
        let similarity: Vec<f32> = texts[start..start + n].iter().map(|text| 100.0 * dot(region, text)).collect();
        let max = similarity.iter().copied().fold(f32::MIN, f32::max);
        right += u32::from(similarity[0] == max);
        start += n;
    }
    let [found] = choose(&tensor(&regions), &tensor(&texts), &owners, Ties::Right).expect("scores");
    near(found.value, f64::from(right) / 150.0);
    assert!(right > 74 && right < 150, "{right}");
    near(found.chance, counts.iter().map(|n| 1.0 / *n as f64).sum::<f64>() / 150.0);
}

#[test]
fn a_tie_is_right_in_fgovd_and_a_share_elsewhere() {
    let region = [vec![1.0, 0.0]];
    let texts = [vec![0.5, 0.5], vec![0.5, -0.5], vec![0.1, 0.0], vec![0.5, 0.0]];
    let of = |ties| choose(&tensor(&region), &tensor(&texts), &[0; 4], ties).expect("scores")[0].value;
    near(of(Ties::Right), 1.0);
    near(of(Ties::Share), 1.0 / 3.0);
}

#[test]
fn expressions_choose_among_the_boxes_of_their_own_picture() {
    let regions = features(60, 0.2);
    let pictures: Vec<usize> = (0..60).map(|i| i / 4 + usize::from(i >= 30)).collect();
    let owners: Vec<usize> = (0..90).map(|j| j * 2 / 3).collect();
    let texts: Vec<Vec<f32>> = owners
        .iter()
        .enumerate()
        .map(|(j, &o)| if j % 3 == 0 { regions[o].clone() } else { features(1, j as f64)[0].clone() })
        .collect();
    let mut right = 0;
    for (text, &owner) in texts.iter().zip(&owners) {
        let boxes: Vec<usize> = (0..60).filter(|&i| pictures[i] == pictures[owner]).collect();
        let scores: Vec<f32> = boxes.iter().map(|&i| dot(&regions[i], text)).collect();
        right += u32::from(boxes[topk(&scores, 1)[0]] == owner);
    }
    let (regions, texts) = (tensor(&regions), tensor(&texts));
    let [found] = refer((&regions, &pictures), (&texts, &owners), Ties::Share).expect("scores");
    near(found.value, f64::from(right) / 90.0);
    assert!(right >= 30 && right < 90, "{right}");
}

#[test]
fn recall_is_that_of_the_retrieval_scripts() {
    let images = features(70, 0.9);
    // Five captions an image, some of them at their image.
    let owners: Vec<usize> = (0..350).map(|j| j / 5).collect();
    let noise = features(350, 4.2);
    let near_to = |j: usize| {
        let (image, noise) = (&images[owners[j]], &noise[j]);
        unit(std::array::from_fn(|d| image[d] + noise[d] * (j % 7) as f32 / 5.0))
    };
    let texts: Vec<Vec<f32>> = (0..350).map(near_to).collect();
    let found = retrieve(&tensor(&images), &tensor(&texts), &owners, Ties::Share).expect("scores");
    for (at, k) in [1, 5, 10].into_iter().enumerate() {
        let by_image = |(i, image): (usize, &Vec<f32>)| {
            let row: Vec<f32> = texts.iter().map(|text| dot(image, text)).collect();
            topk(&row, k).iter().any(|&j| owners[j] == i)
        };
        let by_text = |(j, text): (usize, &Vec<f32>)| {
            let row: Vec<f32> = images.iter().map(|image| dot(image, text)).collect();
            topk(&row, k).contains(&owners[j])
        };
        near(found[at].value, images.iter().enumerate().filter(|x| by_image(*x)).count() as f64 / 70.0);
        near(found[3 + at].value, texts.iter().enumerate().filter(|x| by_text(*x)).count() as f64 / 350.0);
    }
    assert!(found[0].value > found[0].chance && found[0].value < 1.0 && found[3].value < found[5].value);
    near(found[3].chance, 1.0 / 70.0);
    near(found[0].chance, 5.0 / 350.0);
}

#[test]
fn one_feature_for_everything_scores_chance() {
    let (images, texts) = (vec![vec![0.6, 0.8]; 8], vec![vec![0.6, 0.8]; 24]);
    let owners: Vec<usize> = (0..24).map(|j| j / 3).collect();
    let found = retrieve(&tensor(&images), &tensor(&texts), &owners, Ties::Share).expect("scores");
    for score in &found {
        near(score.value, score.chance);
    }
    near(found[0].value, 1.0 / 8.0);
    assert!(retrieve(&tensor(&images), &tensor(&texts), &[0; 24], Ties::Share).is_err(), "images without a text");
}

#[test]
fn of_captions_the_best_counts() {
    // Image 0 has captions 0 and 1; its worse one stands last, its better one second.
    let images = [vec![1.0, 0.0], vec![0.0, 1.0]];
    let texts = [vec![0.1, 0.0], vec![0.8, 0.0], vec![0.9, 0.5]];
    let found = retrieve(&tensor(&images), &tensor(&texts), &[0, 0, 1], Ties::Share).expect("scores");
    near(found[0].value, 0.5);
    near(found[1].value, 1.0);
    near(found[3].value, 2.0 / 3.0);
}
