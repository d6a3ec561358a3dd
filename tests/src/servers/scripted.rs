//! An HTTP server that does to each request what a test wants, to the byte.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Path and query, or for a proxy the whole address.
    pub target: String,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// How many requests came before it.
    pub number: usize,
}

impl Request {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The first byte that is asked for; 0 without a range.
    pub fn from(&self) -> usize {
        let range =
            self.header("range").and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
        range.unwrap_or(0)
    }
}

/// An answer that is being written.
#[derive(Debug)]
pub struct Reply {
    stream: TcpStream,
    stop: Arc<AtomicBool>,
}

impl Reply {
    /// Writes these bytes. Whether somebody reads them is not the server's concern.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).and_then(|()| self.stream.flush()).ok();
    }

    /// Writes status line and headers.
    pub fn head(&mut self, status: &str, headers: &[(&str, String)]) {
        let lines: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self.raw(format!("HTTP/1.1 {status}\r\nConnection: close\r\n{}\r\n", lines.concat()).as_bytes());
    }

    /// Writes a whole answer.
    pub fn send(&mut self, status: &str, headers: &[(&str, String)], body: &[u8]) {
        let length = ("Content-Length", body.len().to_string());
        self.head(status, &[headers, &[length]].concat());
        self.raw(body);
    }

    /// Writes a file as good servers do: with its tag, and from where the range begins.
    pub fn file(&mut self, request: &Request, bytes: &[u8]) {
        self.part_of_file(request, bytes, bytes.len());
    }

    /// The same, but the connection ends after so many bytes of the body.
    pub fn part_of_file(&mut self, request: &Request, bytes: &[u8], most: usize) {
        let from = request.from();
        let length = ("Content-Length", (bytes.len() - from).to_string());
        let tag = ("ETag", "\"1\"".to_owned());
        if request.header("range").is_some() {
            let range = ("Content-Range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()));
            self.head("206 Partial Content", &[length, tag, range]);
        } else {
            self.head("200 OK", &[length, tag]);
        }
        self.raw(&bytes[from..(from + most).min(bytes.len())]);
    }

    /// Writes one byte every so often, until the server ends or nobody listens.
    pub fn drip(&mut self, every: Duration) {
        while !self.stop.load(Ordering::Relaxed) && self.stream.write_all(b"x").is_ok() {
            std::thread::sleep(every);
        }
    }

    /// Does nothing until the server ends.
    pub fn hang(&mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The server. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// A server on a port of its own. What it does runs on a thread for each request.
    pub fn start(answer: impl Fn(&Request, &mut Reply) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (requests, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (answer, seen, ended) = (Arc::new(answer), requests.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (answer, seen, ended) = (answer.clone(), seen.clone(), ended.clone());
                std::thread::spawn(move || {
                    let Some(request) = read(&stream, &seen) else { return };
                    answer(&request, &mut Reply { stream, stop: ended });
                });
            }
        });
        Self { address, requests, stop, thread: Some(thread) }
    }

    /// Its address, `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("requests").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes it up.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn read(stream: &TcpStream, seen: &Mutex<Vec<Request>>) -> Option<Request> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let first = lines.next()?.ok()?;
    let target = first.split(' ').nth(1)?.to_owned();
    let mut headers = Vec::new();
    for line in lines {
        let line = line.ok()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let mut seen = seen.lock().expect("requests");
    let request = Request { target, headers, number: seen.len() };
    seen.push(request.clone());
    Some(request)
}
