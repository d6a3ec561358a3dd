//! The figures on a Unix socket, for what scrapes without D-Bus: whatever is asked, the answer is `OpenMetrics` text in
//! a reply of HTTP, so that `curl --unix-socket` and the agents of monitoring systems can read it.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::Host;

/// How long one request may take, from its first byte to the last of the answer.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of a request that are looked at.
const REQUEST_SIZE: usize = 8 * 1024;
/// Requests that are answered at once; further ones wait in the kernel.
const AT_ONCE: usize = 4;

/// A socket that anybody may ask, as anybody may read the figures on the bus.
#[derive(Debug)]
pub struct MetricsSocket {
    listener: UnixListener,
}

impl MetricsSocket {
    /// Makes the socket. One that a former daemon has left behind is replaced, any other file is not.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.file_type().is_socket() => fs::remove_file(path)?,
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is there already and is no socket")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
        Ok(Self { listener })
    }

    /// Answers requests for ever.
    pub async fn serve(&self, host: &Host) {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        loop {
            // Never closed, so there is always a place some time.
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let host = host.clone();
                    tokio::spawn(async move {
                        // The peer may have gone away, which is its own affair.
                        drop(tokio::time::timeout(REQUEST_LIMIT, answer(stream, &host)).await);
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!("The socket of the metrics cannot be listened to: {error}");
                    // Such as too many open files, which does not end by trying at once.
                    tokio::time::sleep(REQUEST_LIMIT).await;
                }
            }
        }
    }
}

async fn answer(mut stream: UnixStream, host: &Host) -> io::Result<()> {
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < REQUEST_SIZE {
        match stream.read(&mut piece).await? {
            0 => break,
            length => request.extend_from_slice(piece.get(..length).unwrap_or_default()),
        }
    }
    let text = host.metrics().await;
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}
