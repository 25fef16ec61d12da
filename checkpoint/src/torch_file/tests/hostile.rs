//! Pickles that nobody's torch wrote: each is refused, nothing runs, no memory is taken that the file does not pay for.

use super::super::*;
use proptest::prelude::*;
use std::io::Write;
use tempfile::TempDir;

/// A torch.save container with this pickle and these records.
fn container(pickle: &[u8], records: &[(&str, &[u8])]) -> (TempDir, std::path::PathBuf) {
    let mut zip = Vec::new();
    let mut archive = rawzip::ZipArchiveWriter::new(&mut zip);
    for (name, bytes) in [("data.pkl", pickle)].iter().chain(records) {
        let (mut entry, config) =
            archive.new_file(format!("x/{name}")).compression_method(rawzip::CompressionMethod::STORE).start().unwrap();
        let mut writer = config.wrap(&mut entry);
        writer.write_all(bytes).unwrap();
        let (_, descriptor) = writer.finish().unwrap();
        entry.finish(descriptor).unwrap();
    }
    archive.finish().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pt");
    std::fs::write(&path, zip).unwrap();
    (folder, path)
}

fn said(pickle: &[u8], records: &[(&str, &[u8])]) -> String {
    let (_folder, path) = container(pickle, records);
    TorchFile::open(&path).unwrap_err().to_string()
}

fn refused(pickle: &[u8]) -> String {
    let (_folder, path) = container(pickle, &[]);
    match TorchFile::open(&path) {
        Err(TorchFileError::Refused { global, .. }) => global,
        other => panic!("{other:?}"),
    }
}

/// `{"w": tensor}` of `shape` and `stride` over a storage of `len` floats; sizes below 256.
fn one_tensor(len: u8, offset: u8, shape: &[u8], stride: &[u8]) -> Vec<u8> {
    let mut p = b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage".to_vec();
    p.extend(b"ctorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK");
    p.extend([len, b't', b'Q', b'K', offset, b'(']);
    p.extend(shape.iter().flat_map(|&s| [b'K', s]));
    p.extend(b"t(");
    p.extend(stride.iter().flat_map(|&s| [b'K', s]));
    p.extend(b"t\x89ccollections\nOrderedDict\n)RtRs.");
    p
}

#[test]
fn names_outside_the_list_are_refused_however_they_are_reached() {
    assert_eq!(refused(b"cos\nsystem\n(X\x02\x00\x00\x00idtR."), "os.system");
    assert_eq!(refused(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R."), "builtins.eval");
    assert_eq!(refused(b"\x80\x02c__builtin__\ngetattr\n(c__builtin__\n__import__\n"), "__builtin__.getattr");
    assert_eq!(refused(b"\x80\x02(ios\nsystem\n."), "os.system");
    // INST calls what it names: it is refused even for a name of the list.
    assert_eq!(refused(b"\x80\x02(icollections\nOrderedDict\n."), "collections.OrderedDict");
    // Behind a valid tensor, as the argument of a listed call, and never used at all.
    let tensor = one_tensor(4, 0, &[2], &[1]);
    assert_eq!(refused(&[&tensor[..tensor.len() - 1], b"cposix\nsystem\n."].concat()), "posix.system");
    assert_eq!(refused(b"\x80\x02ccollections\nOrderedDict\n(csubprocess\nPopen\nNtR."), "subprocess.Popen");
    assert_eq!(refused(b"\x80\x02cwebbrowser\nopen\n0}."), "webbrowser.open");
    // Attributes of listed modules are other names, also dotted ones of protocol 4.
    assert_eq!(refused(b"\x80\x02ctorch\nload\n."), "torch.load");
    assert_eq!(refused(b"\x80\x04\x8c\x05torch\x8c\x10FloatStorage.new\x93."), "torch.FloatStorage.new");
    assert_eq!(refused(b"\x80\x02ctorch.storage\n_load_from_bytes\n."), "torch.storage._load_from_bytes");
}

#[test]
fn calls_of_listed_names_with_other_arguments_are_refused() {
    let rebuilt = said(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01tR.", &[]);
    assert!(rebuilt.contains("`torch._utils._rebuild_tensor_v2` with arguments"), "{rebuilt}");
    let text = said(b"\x80\x02X\x02\x00\x00\x00os)R.", &[]);
    assert!(text.contains("class or function expected, found str"), "{text}");
    let ordered = said(b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.", &[]);
    assert!(ordered.contains("`collections.OrderedDict` with arguments"), "{ordered}");
    let storage = said(b"\x80\x02ctorch\nFloatStorage\n)R.", &[]);
    assert!(storage.contains("storage class` with arguments"), "{storage}");
    let built = said(b"\x80\x02ctorch\nFloatStorage\n}b.", &[]);
    assert!(built.contains("dict expected, found class or function"), "{built}");
    // A storage's key that would leave its folder.
    let key = said(
        b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x08\x00\x00\x00../../etX\x01\x00\x00\x00cK\x01tQ.",
        &[],
    );
    assert!(key.contains("`persistent id` with arguments"), "{key}");
}

#[test]
fn opcodes_that_torch_does_not_write_are_refused() {
    // EXT1, NEWOBJ_EX, PERSID, NEXT_BUFFER, OBJ, DUP, and none at all.
    for opcode in [0x82u8, 0x92, b'P', 0x97, b'o', b'2', 0xff] {
        let text = said(&[0x80, 2, b'(', opcode, 1, b'.'], &[]);
        assert!(text.contains(&format!("at byte 3: opcode 0x{opcode:02x}")), "{text}");
    }
    assert!(said(b"\x80\x09}.", &[]).contains("protocol 9"));
}

#[test]
fn malformed_pickles_say_where() {
    let cases: [(&[u8], &str); 8] = [
        (b"", "at byte 0: it ends too early"),
        (b"\x80\x02}", "at byte 3: it ends too early"),
        (b"\x80\x02.", "too little on the stack"),
        (b"\x80\x02h\x07.", "memo 7 is empty"),
        // Lengths of 4 GiB and 2^63 that the file does not have.
        (b"\x80\x02X\xff\xff\xff\xffab.", "it ends too early"),
        (b"\x80\x04\x8d\x00\x00\x00\x00\x00\x00\x00\x80ab.", "it ends too early"),
        (b"\x80\x02X\x01\x00\x00\x00\xff.", "not UTF-8"),
        // A value popped from below a mark.
        (b"\x80\x02}(0.", "too little on the stack"),
    ];
    for (pickle, part) in cases {
        let text = said(pickle, &[]);
        assert!(text.contains(part), "{pickle:?}: {text}");
    }
}

#[test]
fn huge_memos_deep_nesting_and_cycles_cost_their_bytes() {
    // A memo number of 2^32 - 1.
    assert!(said(b"\x80\x02}r\xff\xff\xff\xffj\xff\xff\xff\xff.", &[]).contains("no tensor"));
    // A million tuples within each other, and a million open marks.
    let mut deep = b"\x80\x02)".to_vec();
    deep.extend(std::iter::repeat_n(0x85, 1_000_000));
    deep.push(b'.');
    assert!(said(&deep, &[]).contains("found a tuple"));
    let marks = [&b"\x80\x02"[..], &vec![b'('; 1_000_000], b"."].concat();
    assert!(said(&marks, &[]).contains("too little on the stack"));
    // More values than any checkpoint has.
    let many = [&b"\x80\x02"[..], &vec![b'N'; node::NODES_MAX + 1], b"."].concat();
    assert!(said(&many, &[]).contains("more than 4194304 values"));
    // A dict that is its own `model`, for ever.
    let cycle = b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s.";
    assert!(said(cycle, &[]).contains("no tensor"), "{}", said(cycle, &[]));
}

#[test]
fn tensors_lie_within_their_storage() {
    let four = 4f32.to_le_bytes().repeat(4);
    let records: &[(&str, &[u8])] = &[("data/0", &four)];
    let (_folder, path) = container(&one_tensor(4, 1, &[1, 3], &[3, 1]), records);
    assert_eq!(TorchFile::open(&path).unwrap().read("w").unwrap().bytes, four[4..]);
    let beyond = said(&one_tensor(4, 2, &[3], &[1]), records);
    assert!(beyond.contains("ends at element 5 of a storage of 4"), "{beyond}");
    let strided = said(&one_tensor(4, 0, &[2, 2], &[3, 1]), records);
    assert!(strided.contains("ends at element 5 of a storage of 4"), "{strided}");
    let expanded = said(&one_tensor(4, 0, &[200, 200], &[0, 0]), records);
    assert!(expanded.contains("40000 elements over a storage of 4"), "{expanded}");
    let rank = said(&one_tensor(4, 0, &[2], &[1, 1]), records);
    assert!(rank.contains("1 sizes and 2 strides"), "{rank}");
    let size = said(&one_tensor(5, 0, &[2], &[1]), records);
    assert!(size.ends_with("record `data/0` has 16 bytes, its tensors say 20"), "{size}");
    let missing = said(&one_tensor(4, 0, &[2], &[1]), &[]);
    assert!(missing.ends_with("record `data/0` is missing"), "{missing}");
}

#[test]
fn a_file_without_a_state_dict_says_what_it_holds() {
    let keys = said(b"\x80\x02}(X\x05\x00\x00\x00epochK\x03X\x05\x00\x00\x00model]u.", &[]);
    assert!(keys.ends_with("found a dict with the keys [epoch, model] and no tensor"), "{keys}");
    assert!(said(b"\x80\x02].", &[]).ends_with("found a list"));
    assert!(said(b"\x80\x02}.", &[("byteorder", b"big")]).contains("big-endian files are not read"));
    assert!(said(b"\x80\x02}.", &[("constants.pkl", b"")]).contains("TorchScript"));
    assert!(said(b"\x80\x02}.", &[("data.pkl", b"\x80\x02}.")]).ends_with("record `x/data.pkl` is there twice"));
}

/// Instructions and operands that get further into the machine than random bytes do.
fn instructions() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<&'static [u8]> = vec![
        b"(",
        b")",
        b"]",
        b"}",
        b"t",
        b"l",
        b"d",
        b"e",
        b"a",
        b"u",
        b"s",
        b"R",
        b"b",
        b"Q",
        b"0",
        b"1",
        b"N",
        b"\x85",
        b"\x86",
        b"\x87",
        b"\x81",
        b"\x8f",
        b"\x90",
        b"\x91",
        b"\x94",
        b"q\x00",
        b"h\x00",
        b"r\x01\x00\x00\x00",
        b"K\x03",
        b"J\xff\xff\xff\xff",
        b"\x8a\x01\x80",
        b"X\x01\x00\x00\x000",
        b"X\x07\x00\x00\x00storage",
        b"X\x05\x00\x00\x00model",
        b"ctorch\nFloatStorage\n",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ctorch._utils\n_rebuild_parameter\n",
        b"ccollections\nOrderedDict\n",
        b"cargparse\nNamespace\n",
        b"ctorch._tensor\n_rebuild_from_type_v2\n",
        b".",
    ];
    prop::collection::vec(prop::sample::select(pieces), 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok((graph, root)) = pickle::read(&bytes) {
            drop(state_dict::find(&graph, root));
        }
    }

    #[test]
    fn any_instructions_are_read_or_refused(bytes in instructions()) {
        if let Ok((graph, root)) = pickle::read(&bytes) {
            drop(state_dict::find(&graph, root));
        }
    }

    #[test]
    fn any_file_is_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pt");
        bytes.splice(0..0, *b"PK\x03\x04");
        std::fs::write(&path, bytes).unwrap();
        prop_assert!(TorchFile::open(&path).is_err());
    }
}
