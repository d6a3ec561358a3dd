use super::*;

struct Bytes(io::Cursor<Vec<u8>>);

impl Read for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // In pieces, as from a network.
        let count = buffer.len().min(1_000);
        self.0.read(&mut buffer[..count])
    }
}

impl ArtifactInput for Bytes {
    fn size(&self) -> Option<u64> {
        Some(self.0.get_ref().len() as u64)
    }
}

fn input(bytes: &[u8]) -> Box<dyn ArtifactInput> {
    Box::new(Bytes(io::Cursor::new(bytes.to_vec())))
}

fn cache(directory: &Path, max_size: u64, strict: bool) -> Arc<Cache> {
    Cache::new(ArtifactsCache { enabled: true, path: directory.to_owned(), max_size, strict })
}

fn ticket(cache: &Arc<Cache>, key: &str, size: u64) -> Ticket {
    match cache.look_for(key, size) {
        Found::Nothing(ticket) => ticket,
        Found::Whole(_) | Found::Awaited(_) => panic!("the cache has {key}"),
    }
}

fn read_all(mut input: Box<dyn ArtifactInput>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes).map(|_| bytes)
}

fn key(number: u8) -> String {
    format!("{number:032x}")
}

fn count(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

#[test]
fn keys_tell_places_and_contents_apart_and_files_have_none() {
    let url = |url: &str| Location::Url { url: url.to_owned() };
    let release = |release: &str, id: &str| Location::Release { release: release.into(), id: id.into() };
    let keys = [
        super::key(&url("https://h/a"), "d", 1),
        super::key(&url("https://h/b"), "d", 1),
        super::key(&url("https://h/a"), "e", 1),
        super::key(&url("https://h/a"), "d", 2),
        super::key(&release("r", "https://h/a"), "d", 1),
    ];
    let different: std::collections::BTreeSet<_> = keys.iter().flatten().collect();
    assert_eq!(different.len(), keys.len());
    assert_eq!(super::key(&release("r", "7"), "d", 1), super::key(&release("s", "7"), "d", 1));
    assert_eq!(super::key(&Location::File("/a".into()), "d", 1), None);
}

#[test]
fn what_was_read_to_its_end_is_there_and_what_was_not_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let cache = cache(directory.path(), 0, false);
    let bytes = vec![7; 10_000];

    let mut half = cache.write(ticket(&cache, &key(1), 10_000), input(&bytes), 10_000).unwrap();
    half.read_exact(&mut [0; 5_000]).unwrap();
    assert!(matches!(cache.look_for(&key(1), 10_000), Found::Awaited(_)));
    drop(half);
    assert_eq!(count(directory.path()), 0);

    let whole = cache.write(ticket(&cache, &key(1), 10_000), input(&bytes), 10_000).unwrap();
    assert_eq!(read_all(whole).unwrap(), bytes);
    let Found::Whole(found) = cache.look_for(&key(1), 10_000) else { panic!("nothing there") };
    assert_eq!(read_all(Box::new(found)).unwrap(), bytes);

    // Another daemon finds it too, but not once a byte has changed.
    let path = fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
    fs::write(&path, vec![8; 10_000]).unwrap();
    drop(ticket(&self::cache(directory.path(), 0, false), &key(1), 10_000));
    assert_eq!(count(directory.path()), 0);
}

#[test]
fn the_oldest_give_way_and_the_unused_go() {
    let directory = tempfile::tempdir().unwrap();
    let cache = cache(directory.path(), 25_000, false);
    for number in 1..=3 {
        let written = cache.write(ticket(&cache, &key(number), 10_000), input(&[number; 10_000]), 10_000).unwrap();
        read_all(written).unwrap();
        for entry in cache.entries().into_iter().filter(|entry| entry.key == key(number)) {
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(u64::from(number));
            File::options().write(true).open(entry.path).unwrap().set_modified(time).unwrap();
        }
    }
    let keys = || {
        let mut keys: Vec<String> = cache.entries().into_iter().map(|entry| entry.key).collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(), [key(2), key(3)]);
    cache.keep(&[key(1), key(3)]);
    assert_eq!(keys(), [key(3)]);
    cache.forget(&key(3));
    assert_eq!(keys(), [""; 0]);
}

#[test]
fn nothing_is_evicted_for_what_does_not_fit_anyway() {
    let directory = tempfile::tempdir().unwrap();
    let cache = cache(directory.path(), 25_000, false);
    read_all(cache.write(ticket(&cache, &key(1), 10_000), input(&[1; 10_000]), 10_000).unwrap()).unwrap();
    let passed = cache.write(ticket(&cache, &key(2), 30_000), input(&vec![2; 30_000]), 30_000).unwrap();
    assert_eq!(read_all(passed).unwrap().len(), 30_000);
    assert_eq!(count(directory.path()), 1);

    let strict = self::cache(directory.path(), 25_000, true);
    let refused = strict.write(ticket(&strict, &key(2), 30_000), input(&vec![2; 30_000]), 30_000);
    assert_eq!(refused.err().map(|error| error.kind), Some(Kind::Storage));
    // The ticket is back.
    drop(ticket(&strict, &key(2), 30_000));
}

/// An input that is written to a device which is full.
fn onto_full(cache: &Arc<Cache>, directory: &Path) -> Box<dyn ArtifactInput> {
    let ticket = ticket(cache, &key(1), 10_000);
    let file = File::options().write(true).open("/dev/full").unwrap();
    let path = directory.join("full");
    let writer = Writer { ticket, path, file, hash: Context::new(&SHA256), written: 0, whole: false };
    Box::new(Cached { input: input(&[1; 10_000]), size: 10_000, writer: Some(writer) })
}

#[test]
fn a_disk_that_gets_full_matters_only_to_those_who_wait_for_the_copy() {
    let directory = tempfile::tempdir().unwrap();
    let lax = cache(directory.path(), 0, false);
    assert_eq!(read_all(onto_full(&lax, directory.path())).unwrap().len(), 10_000);

    let input = onto_full(&lax, directory.path());
    let Found::Awaited(mut end) = lax.look_for(&key(1), 10_000) else { panic!("nobody writes") };
    let error = read_all(input).unwrap_err().downcast::<Error>().unwrap();
    assert_eq!(error.kind, Kind::Storage, "{error}");
    assert!(error.message.contains("No space left on device"), "{error}");
    // Those who wait are told.
    assert!(end.has_changed().is_err());
    end.mark_unchanged();
    drop(ticket(&lax, &key(1), 10_000));

    let strict = cache(directory.path(), 0, true);
    assert!(read_all(onto_full(&strict, directory.path())).is_err());
}

#[test]
fn only_files_of_ours_are_touched() {
    let directory = tempfile::tempdir().unwrap();
    let foreign = ["a.partial", "a.mender", "readme", ".partial"].map(|name| directory.path().join(name));
    for path in &foreign {
        fs::write(path, "x").unwrap();
    }
    fs::write(directory.path().join(format!("{}.partial", key(1))), "x").unwrap();
    let cache = cache(directory.path(), 0, false);
    cache.begin().unwrap();
    cache.keep(&[]);
    assert_eq!(count(directory.path()), foreign.len());
    let missing = self::cache(&directory.path().join("none"), 0, false);
    assert_eq!(missing.begin().unwrap_err().kind, Kind::InvalidConfiguration);
}
