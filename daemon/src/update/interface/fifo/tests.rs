use std::io::Read;
use std::thread;

use tempfile::TempDir;

use super::*;

struct Bench {
    directory: TempDir,
    gate: Arc<Gate>,
    fifo: Arc<Fifo>,
}

impl Bench {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let fifo = Arc::new(Fifo::create(&directory.path().join("fifo")).unwrap());
        Self { directory, gate: Arc::new(Gate::new().unwrap()), fifo }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("fifo")
    }

    /// Opens the FIFO in a thread and writes this much.
    fn write(&self, size: usize) -> thread::JoinHandle<Result<(), String>> {
        let (gate, fifo) = (Arc::clone(&self.gate), Arc::clone(&self.fifo));
        thread::spawn(move || {
            let mut writer = fifo.open(&gate).map_err(|error| format!("{error:?}"))?;
            writer.write_all(&vec![7; size]).map_err(|error| error.to_string())
        })
    }

    fn wait_until_opening(&self) {
        while self.gate.lock().opening.is_none() {
            thread::yield_now();
        }
    }
}

#[test]
fn what_is_written_is_read_to_its_end() {
    let bench = Bench::new();
    let writer = bench.write(1 << 20);
    let mut read = Vec::new();
    File::open(bench.path()).unwrap().read_to_end(&mut read).unwrap();
    assert_eq!(writer.join().unwrap(), Ok(()));
    assert_eq!(read, vec![7; 1 << 20]);
}

#[test]
fn the_release_ends_an_open_that_nobody_answers() {
    let bench = Bench::new();
    let writer = bench.write(1);
    bench.wait_until_opening();
    bench.gate.release();
    assert_eq!(writer.join().unwrap(), Err("Released".to_owned()));
}

#[test]
fn the_release_ends_an_open_of_a_fifo_that_was_removed() {
    let bench = Bench::new();
    let writer = bench.write(1);
    bench.wait_until_opening();
    std::fs::remove_file(bench.path()).unwrap();
    bench.gate.release();
    assert_eq!(writer.join().unwrap(), Err("Released".to_owned()));
}

#[test]
fn the_release_ends_an_open_that_comes_later() {
    let bench = Bench::new();
    bench.gate.release();
    assert_eq!(bench.write(1).join().unwrap(), Err("Released".to_owned()));
    bench.gate.wait();
}

#[test]
fn the_release_ends_a_write_that_nobody_reads() {
    let bench = Bench::new();
    let writer = bench.write(2 << 20);
    let mut reader = File::open(bench.path()).unwrap();
    reader.read_exact(&mut [0]).unwrap();
    bench.gate.release();
    assert_eq!(writer.join().unwrap(), Err(Released.to_string()));
}

#[test]
fn a_reader_that_leaves_breaks_the_pipe() {
    let bench = Bench::new();
    let writer = bench.write(2 << 20);
    let mut reader = File::open(bench.path()).unwrap();
    reader.read_exact(&mut [0]).unwrap();
    drop(reader);
    let error = writer.join().unwrap().unwrap_err();
    assert!(error.contains("Broken pipe"), "{error}");
}

#[test]
fn what_is_left_in_the_pipe_is_seen_and_not_taken() {
    let bench = Bench::new();
    let (gate, fifo) = (Arc::clone(&bench.gate), Arc::clone(&bench.fifo));
    let writer = thread::spawn(move || {
        let mut writer = fifo.open(&gate).unwrap();
        writer.write_all(b"abc").unwrap();
        writer.close().unwrap()
    });
    let mut reader = File::open(bench.path()).unwrap();
    let unread = writer.join().unwrap();
    reader.read_exact(&mut [0; 2]).unwrap();
    assert!(unread.anything());
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "c");
    assert!(!unread.anything());
}
