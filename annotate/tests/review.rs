//! The review page over a small dataset: what is said there goes back into the rows, and nothing else changes.

use pixfleet_annotate::{NoteKind, Review, notes, serve};
use pixfleet_shards::pixels::{Rgb, decode};
use pixfleet_shards::{
    Columns, ImageRow, ImageSource, Location, Region, RowGroupReader, ShardWriter, WriterOptions, index,
};
use std::sync::Arc;

fn jpeg() -> Vec<u8> {
    let image = Rgb::filled(32, 32, [10, 120, 200]);
    let mut out = Vec::new();
    image::codecs::jpeg::JpegEncoder::new(&mut out)
        .encode(&image.data, 32, 32, image::ExtendedColorType::Rgb8)
        .expect("a JPEG");
    out
}

async fn dataset(url: &str) {
    let location = Location::parse(url).expect("a folder");
    let options = WriterOptions { rows_per_group: 2, bytes_per_file: 1, ..WriterOptions::default() };
    let mut writer = ShardWriter::new(location.clone(), "train", options);
    for i in 0..9 {
        let region = |j: usize| Region {
            bbox: [0.1, 0.1, 0.5 + 0.1 * j as f32, 0.9],
            caption_object: Some(format!("thing {j} of picture {i} <b>")),
            check_ok: Some(true),
            ..Region::default()
        };
        let image = ImageSource { bytes: Some(jpeg().into()), ..ImageSource::default() };
        let (image_id, regions) = (format!("picture-{i}"), (0..=i % 3).map(region).collect());
        writer
            .push(ImageRow { image_id, image, width: 32, height: 32, regions, ..ImageRow::default() })
            .await
            .expect("written");
    }
    writer.finish().await.expect("written");
    index::build(&location, &mut |_, _| {}).await.expect("indexed");
}

async fn rows(url: &str) -> Vec<ImageRow> {
    let location = Location::parse(url).expect("a folder");
    let index = index::open(&location).await.expect("an index");
    let reader = RowGroupReader::new(location, &index, "train", None).expect("a split");
    let mut all = Vec::new();
    for (group, &count) in (0..).zip(&reader.split().shape().rows) {
        all.extend(reader.read(group, &(0..count).collect::<Vec<_>>(), Columns::ROWS).await.expect("rows"));
    }
    all
}

#[tokio::test]
async fn what_is_said_on_the_page_goes_back_into_the_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("file://{}", folder.path().display());
    dataset(&url).await;
    let before = rows(&url).await;

    let review = Arc::new(Review::open(&url, "train", 5, 7).await.expect("opened"));
    assert_eq!(review.count(), 5);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let page = format!("http://{}", listener.local_addr().expect("an address"));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = Arc::clone(&review);
    let server = tokio::spawn(async move {
        let stopped = async { stopped.await.unwrap_or_default() };
        serve(&serving, listener, stopped).await
    });
    let client = reqwest::Client::new();
    let text = client.get(&page).send().await.expect("an answer").text().await.expect("a page");
    assert!(text.contains("thing") && !text.contains("<b>thing") && text.contains("&lt;b&gt;"), "captions are escaped");
    let picture =
        client.get(format!("{page}/picture/0")).send().await.expect("an answer").bytes().await.expect("bytes");
    assert_eq!(decode::dimensions(&picture).expect("a picture"), (32, 32));
    let say = |at: usize, word: &'static str| {
        let request = client.post(format!("{page}/verdict/{at}/{word}"));
        async move { request.send().await.expect("an answer").status().as_u16() }
    };
    assert_eq!((say(0, "reject").await, say(1, "accept").await, say(2, "reject").await), (204, 204, 204));
    assert_eq!((say(2, "clear").await, say(99, "accept").await, say(0, "perhaps").await), (204, 404, 404));
    stop.send(()).expect("it serves");
    server.await.expect("no panic").expect("no fault");

    let applied = review.apply().await.expect("applied");
    assert_eq!((applied.accepted, applied.rejected), (1, 1));
    let after = rows(&url).await;
    let mut refused = 0;
    for (old, new) in before.iter().zip(&after) {
        let said = notes(new);
        let mut expected = old.clone();
        for note in &said {
            let region = note.region.expect("of a region") as usize;
            expected.regions[region].check_ok = Some(note.kind == NoteKind::Accepted);
            refused += u32::from(note.kind == NoteKind::Refused);
        }
        expected.provenance.clone_from(&new.provenance);
        assert_eq!(*new, expected);
    }
    assert_eq!(refused, 1);
}
