use super::*;
use rustix::fs::{FileType, Mode, OFlags, fcntl_setfl, mknodat};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

fn batch(lines: &[&str]) -> Batch {
    let bytes = lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect();
    Batch { bytes, records: u32::try_from(lines.len()).expect("few") }
}

fn writer(output: Output) -> (Writer, Arc<Counts>) {
    let counts = Arc::<Counts>::default();
    (Writer::new(output, Arc::clone(&counts)), counts)
}

fn told(counts: &Counts) -> (u64, u64) {
    (counts.records(), counts.dropped())
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a file")
}

#[test]
fn a_batch_has_room_for_a_line_up_to_its_limits() {
    let of = |bytes, records| Batch { bytes: vec![0; bytes], records };
    assert!(!of(BATCH_BYTES_MAX - LINE_BYTES_MAX, 1).is_full());
    assert!(of(BATCH_BYTES_MAX - LINE_BYTES_MAX + 1, 1).is_full());
    assert!(!of(1, BATCH_RECORDS_MAX - 1).is_full());
    assert!(of(1, BATCH_RECORDS_MAX).is_full());
}

#[test]
fn lines_are_appended_to_a_file_that_others_cannot_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    for round in 1..=2 {
        let (mut writer, counts) = writer(Output::open(&path).expect("a file"));
        writer.write(&batch(&["a", "b"]));
        assert_eq!(told(&counts), (2, 0));
        assert_eq!(text(&path), "a\nb\n".repeat(round));
    }
    let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
    assert_eq!(mode & 0o137, 0, "{mode:o}");
}

#[test]
fn a_file_that_was_renamed_is_left_for_one_with_the_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, old) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let (mut writer, counts) = writer(Output::open(&path).expect("a file"));
    writer.write(&batch(&["a"]));
    std::fs::rename(&path, &old).expect("renamed");
    // Until somebody says so, or looks.
    let now = Instant::now();
    assert!(!writer.output.has_moved(now));
    assert!(writer.output.has_moved(now + Duration::from_secs(2)));
    writer.write(&batch(&["b"]));
    writer.reopen();
    writer.write(&batch(&["c"]));
    assert_eq!((text(&old), text(&path)), ("a\nb\n".to_owned(), "c\n".to_owned()));
    assert!(!writer.output.has_moved(now + Duration::from_secs(4)), "it has the name");
    // Nor is one that is still there opened at another place.
    writer.reopen();
    writer.write(&batch(&["d"]));
    assert_eq!((text(&path), told(&counts)), ("c\nd\n".to_owned(), (4, 0)));
}

#[test]
fn a_file_that_cannot_be_opened_again_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let inner = folder.path().join("inner");
    std::fs::create_dir(&inner).expect("a folder");
    let (mut writer, counts) = writer(Output::open(&inner.join("access.log")).expect("a file"));
    let moved = folder.path().join("moved");
    std::fs::rename(&inner, &moved).expect("renamed");
    writer.reopen();
    writer.write(&batch(&["a"]));
    assert_eq!((text(&moved.join("access.log")), told(&counts)), ("a\n".to_owned(), (1, 0)));
}

#[test]
fn what_a_full_disk_does_not_take_is_counted() {
    let (mut writer, counts) = writer(Output::open(Path::new("/dev/full")).expect("a device"));
    for round in 1..=3 {
        writer.write(&batch(&["a", "b"]));
        assert_eq!(told(&counts), (0, 2 * round));
    }
    assert!(writer.complained.is_some());
}

#[test]
fn a_pipe_by_name_that_nobody_reads_is_refused_rather_than_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("pipe");
    mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
    assert!(Output::open(&path).is_err());
    assert!(Output::open(&folder.path().join("none").join("access.log")).is_err());
}

#[test]
fn a_line_that_broke_off_is_ended_before_the_next() {
    let (mut reader, end) = std::io::pipe().expect("a pipe");
    let end = OwnedFd::from(end);
    fcntl_setfl(&end, OFlags::NONBLOCK).expect("a flag");
    let (mut writer, counts) = writer(Output::of(File::from(end)));
    let line = "x".repeat(9_999);
    let lines = [line.as_str(); 20];
    writer.write(&batch(&lines));
    let (whole, lost) = told(&counts);
    assert!(whole > 0 && lost > 0 && whole + lost == 20, "{whole} and {lost} of 200 KB in a pipe");
    assert!(writer.is_torn);
    let mut taken = vec![0; 20_000];
    reader.read_exact(&mut taken).expect("bytes");
    writer.write(&batch(&["next"]));
    assert_eq!(told(&counts), (whole + 1, lost));
    drop(writer);
    reader.read_to_end(&mut taken).expect("the end");
    let text = String::from_utf8(taken).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    let (torn, next) = (lines[lines.len() - 2], lines[lines.len() - 1]);
    assert!((1..9_999).contains(&torn.len()) && next == "next", "{} {next}", torn.len());
    assert_eq!(lines.len() as u64, whole + 2);
}
