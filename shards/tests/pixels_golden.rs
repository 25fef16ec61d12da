//! Pixels against pycocotools and Pillow; the golden files are written by the scripts beside them.

use image::{ExtendedColorType, ImageEncoder};
use pixfleet_cluster::rng::mix;
use pixfleet_cluster::spec::{DataSpec, Fit, LossPreset, LossSpec, Needs};
use pixfleet_shards::pixels::resize::{Raster, Rect};
use pixfleet_shards::pixels::rle::Rle;
use pixfleet_shards::pixels::{Mask, Rgb, polygon};
use pixfleet_shards::sample::{MEAN, STD, SampleConfig, TextSource, full_sample};
use pixfleet_shards::{ImageRow, ImageSource};

fn draw(i: u64, k: u64, n: u64) -> u64 {
    mix((i << 32) + k) % n
}

fn short(text: &[u8]) -> String {
    if text.len() <= 100 {
        return String::from_utf8(text.to_vec()).expect("ASCII");
    }
    let h = text.iter().fold(0xCBF2_9CE4_8422_2325u64, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
    format!("#{h:016x}")
}

/// The same mask as `make` of rle.py.
fn make(i: u64) -> Mask {
    let big = i % 100 == 99;
    let (h, w) = if big { (480, 640) } else { (1 + draw(i, 1, 97), 1 + draw(i, 2, 113)) };
    let kind = if big { 5 + i % 3 } else { i % 8 };
    let boxes: Vec<[u64; 4]> = (0..3)
        .map(|r| {
            let (y, x) = (draw(i, 10 + r, h), draw(i, 20 + r, w));
            [y, y + 1 + draw(i, 30 + r, h), x, x + 1 + draw(i, 40 + r, w)]
        })
        .collect();
    let [y0, x0] = [draw(i, 3, h), draw(i, 4, w)];
    let [a, b] = [1 + draw(i, 5, h), 1 + draw(i, 6, w)];
    let slant = 1 + draw(i, 3, 9);
    let inside = |y: u64, x: u64| match kind {
        0 => false,
        1 => true,
        2 => (y, x) == (y0, x0),
        3 => mix((i << 32) + 1000 + y * w + x).is_multiple_of(2),
        4 => mix((i << 32) + 1000 + y * w + x).is_multiple_of(16),
        5 => boxes.iter().any(|r| (r[0]..r[1]).contains(&y) && (r[2]..r[3]).contains(&x)),
        6 => (x + y / slant) % 7 < 3,
        _ => y.abs_diff(y0).pow(2) * b * b + x.abs_diff(x0).pow(2) * a * a <= a * a * b * b,
    };
    let data = (0..h * w).map(|p| if inside(p / w, p % w) { 255 } else { 0 }).collect();
    Mask { width: w as u32, height: h as u32, data }
}

#[test]
fn masks_encode_and_decode_as_pycocotools_does() {
    let mut seen = 0;
    for line in include_str!("golden/rle.txt").lines().filter(|l| l.starts_with("m ")) {
        let f: Vec<&str> = line.split(' ').collect();
        let mask = make(f[1].parse().expect("index"));
        let rle = Rle::encode(&mask);
        let text = rle.to_coco_string();
        let [x1, y1, x2, y2] = rle.bbox().unwrap_or([0; 4]);
        let ours = format!(
            "m {} {} {} {} {x1} {y1} {} {} {}",
            f[1],
            mask.height,
            mask.width,
            rle.area(),
            x2 - x1,
            y2 - y1,
            short(&text)
        );
        assert_eq!(ours, line);
        let theirs = if f[9].starts_with('#') { text } else { f[9].as_bytes().to_vec() };
        let back = Rle::from_coco_string(&theirs, mask.height, mask.width).expect("pycocotools wrote it");
        assert_eq!(back.decode().expect("in bounds"), mask, "mask {}", f[1]);
        seen += 1;
    }
    assert_eq!(seen, 2000);
}

#[test]
fn polygons_rasterize_as_pycocotools_does() {
    let mut seen = 0;
    for line in include_str!("golden/rle.txt").lines().filter(|l| l.starts_with("p ")) {
        let i: u64 = line.split(' ').nth(1).and_then(|v| v.parse().ok()).expect("index");
        let (h, w) = (8 + draw(i, 1, 60), 8 + draw(i, 2, 60));
        let rings: Vec<Vec<f64>> = (0..1 + i % 2)
            .map(|ring| {
                let (n, k) = (3 + draw(i, 3 + ring, 7), 100 + 100 * ring);
                (0..n)
                    .flat_map(|j| [draw(i, k + 2 * j, 4 * w) as f64 / 4.0, draw(i, k + 2 * j + 1, 4 * h) as f64 / 4.0])
                    .collect()
            })
            .collect();
        let rle = polygon::rasterize(&rings, h as u32, w as u32).expect("a polygon");
        assert_eq!(format!("p {i} {h} {w} {} {}", rle.area(), short(&rle.to_coco_string())), line);
        seen += 1;
    }
    assert_eq!(seen, 300);
}

/// Both compute in fixed point with their own rounding: one grey level apart at most.
/// The same picture as in resize.py and clip_pixels.py.
fn picture(width: u32, height: u32) -> Rgb {
    let level = |x: u64, y: u64, c| 64 + ((mix(y / 5 * 1000 + x / 4 * 3 + c) >> 8) & 127) as u8;
    let points = (0..u64::from(height)).flat_map(|y| (0..u64::from(width)).map(move |x| (x, y)));
    Rgb { width, height, data: points.flat_map(|(x, y)| (0..3).map(move |c| level(x, y, c))).collect() }
}

#[test]
fn resizing_agrees_with_pillow_to_one_grey_level() {
    let mut seen = 0;
    for line in include_str!("golden/resize.txt").lines() {
        let f: Vec<&str> = line.split(' ').collect();
        let n: Vec<u32> = f[1..5].iter().map(|v| v.parse().expect("size")).collect();
        let (w, h) = (u64::from(n[0]), u64::from(n[1]));
        let points = (0..h).flat_map(|y| (0..w).map(move |x| (x, y)));
        let ours = if f[0] == "rgb" {
            picture(n[0], n[1]).resized(Rect::whole(n[0], n[1]), n[2], n[3]).data
        } else {
            let data = points.map(|(x, y)| 255 * (mix(y / 6 * 1000 + x / 7) & 1) as u8).collect();
            Mask { width: n[0], height: n[1], data }.resized(Rect::whole(n[0], n[1]), n[2], n[3]).data
        };
        let theirs: Vec<u8> =
            (0..f[5].len() / 2).map(|i| u8::from_str_radix(&f[5][2 * i..2 * i + 2], 16).expect("hex")).collect();
        assert_eq!(ours.len(), theirs.len());
        let worst = ours.iter().zip(&theirs).map(|(a, b)| a.abs_diff(*b)).max().expect("pixels");
        assert!(worst <= 1, "{} {:?}: {worst} levels apart", f[0], n);
        seen += 1;
    }
    assert_eq!(seen, 8);
}

#[test]
fn a_sample_has_the_pixels_that_clips_image_processor_makes_but_for_one_grey_level() {
    let mut seen = 0;
    for line in include_str!("golden/clip_pixels.txt").lines() {
        let f: Vec<&str> = line.split(' ').collect();
        let [width, height, size] = [0, 1, 2].map(|i: usize| f[i].parse::<u32>().expect("size"));
        let theirs: Vec<f32> = (0..f[3].len() / 8)
            .map(|i| f32::from_bits(u32::from_str_radix(&f[3][8 * i..8 * i + 8], 16).expect("hex").swap_bytes()))
            .collect();
        let ours = pixels(&picture(width, height), size);
        assert_eq!((ours.len(), theirs.len()), ((3 * size * size) as usize, (3 * size * size) as usize));
        // The smallest standard deviation of a channel is 0.2613.
        let level = 1.0 / (255.0 * 0.2613);
        let apart: Vec<f32> = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).collect();
        assert!(apart.iter().all(|&d| d < level + 1e-5), "{width} x {height}: more than a level apart");
        let mean = apart.iter().sum::<f32>() / apart.len() as f32;
        assert!(mean < level / 3.0, "{width} x {height}: {} levels apart on average", mean / level);
        seen += 1;
    }
    assert_eq!(seen, 3);
}

/// The planes of a row's picture, squashed and normalized as a step does it: [3, size, size].
fn pixels(picture: &Rgb, size: u32) -> Vec<f32> {
    let mut png = Vec::new();
    image::codecs::png::PngEncoder::new(&mut png)
        .write_image(&picture.data, picture.width, picture.height, ExtendedColorType::Rgb8)
        .expect("encodes");
    let data = DataSpec { fit: Fit::Squash, ..DataSpec::default() };
    let needs = Needs::of(&LossSpec::preset(LossPreset::Fgclip1Stage1), &data);
    let image = ImageSource { bytes: Some(png.into()), ..ImageSource::default() };
    let row = ImageRow { image, width: picture.width, height: picture.height, ..ImageRow::default() };
    let config = SampleConfig { data, size, needs, texts: TextSource::Vectors(1) };
    let planes = full_sample(&row, &config).expect("a good row").pixels;
    let channel = |at: usize| at / (size * size) as usize;
    planes.iter().enumerate().map(|(at, &v)| (f32::from(v) / 255.0 - MEAN[channel(at)]) / STD[channel(at)]).collect()
}
