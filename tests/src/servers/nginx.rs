//! A real nginx that serves a directory in all the ways that matter.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Certificates;

/// Ports of one nginx.
#[derive(Debug, Clone, Copy)]
struct Ports {
    http: u16,
    https: u16,
    mutual: u16,
    old: u16,
    other: u16,
    expired: u16,
    alone: u16,
}

/// A running nginx; dropping it ends it.
#[derive(Debug)]
pub struct Nginx {
    child: Child,
    ports: Ports,
    directory: PathBuf,
}

impl Nginx {
    /// Starts one that works in this directory and serves `www/` of it.
    pub fn start(directory: &Path, certificates: &Certificates) -> Self {
        fs::create_dir_all(directory.join("www")).expect("a directory");
        // Another process may take a port before nginx does.
        for _ in 0..5 {
            if let Some(nginx) = Self::try_start(directory, certificates) {
                return nginx;
            }
        }
        panic!("nginx does not start:\n{}", fs::read_to_string(directory.join("error.log")).unwrap_or_default());
    }

    fn try_start(directory: &Path, certificates: &Certificates) -> Option<Self> {
        let ports = Ports {
            http: port(),
            https: port(),
            mutual: port(),
            old: port(),
            other: port(),
            expired: port(),
            alone: port(),
        };
        let configuration = directory.join("nginx.conf");
        fs::write(&configuration, text(directory, certificates, ports)).expect("a file");
        let child = Command::new("/usr/sbin/nginx")
            .arg("-e")
            .arg(directory.join("error.log"))
            .arg("-p")
            .arg(directory)
            .arg("-c")
            .arg(&configuration)
            .stdin(Stdio::null())
            .spawn()
            .expect("\"nginx\" (Debian: nginx-light) can be started");
        let mut nginx = Self { child, ports, directory: directory.to_owned() };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", ports.expired)).is_err() {
            let ended = nginx.child.try_wait().expect("a status").is_some();
            if ended || begun.elapsed() > Duration::from_mins(1) {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(nginx)
    }

    /// Where its files are.
    pub fn files(&self) -> PathBuf {
        self.directory.join("www")
    }

    /// The requests so far, one a line: port, path, status, range, bytes sent.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("access.log")).unwrap_or_default()
    }

    /// Without encryption. Below `/moved/`: redirected to https. Below `/loop/`: redirected for ever.
    pub fn http(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.http)
    }

    /// With TLS. Below `/down/`: redirected to http.
    pub fn https(&self) -> String {
        format!("https://localhost:{}", self.ports.https)
    }

    /// With TLS, for clients with a certificate.
    pub fn mutual(&self) -> String {
        format!("https://localhost:{}", self.ports.mutual)
    }

    /// With TLS 1.2 and no other.
    pub fn old(&self) -> String {
        format!("https://localhost:{}", self.ports.old)
    }

    /// With a certificate for another name.
    pub fn other(&self) -> String {
        format!("https://localhost:{}", self.ports.other)
    }

    /// With a certificate that no authority has signed.
    pub fn alone(&self) -> String {
        format!("https://localhost:{}", self.ports.alone)
    }

    /// With a certificate that has expired.
    pub fn expired(&self) -> String {
        format!("https://localhost:{}", self.ports.expired)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

fn text(directory: &Path, certificates: &Certificates, ports: Ports) -> String {
    let here = directory.display();
    let tls = |name: &str| {
        let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
        format!(
            "ssl_certificate {}; ssl_certificate_key {};",
            certificates.path(&certificate).display(),
            certificates.path(&key).display()
        )
    };
    let (server, other, expired, alone) = (tls("server"), tls("other"), tls("expired"), tls("alone"));
    let authority = certificates.path("ca.pem");
    let authority = authority.display();
    let Ports { http, https, mutual, old, other: other_port, expired: expired_port, alone: alone_port } = ports;
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {here}/t;\n"))
        .concat();
    format!(
        "daemon off; master_process off; pid {here}/pid; error_log {here}/error.log;
         events {{}}
         http {{
             {temporary}
             log_format short '$server_port $uri $status $http_range $body_bytes_sent';
             access_log {here}/access.log short;
             root {here}/www;
             default_type application/octet-stream;
             ssl_protocols TLSv1.2 TLSv1.3;
             server {{
                 listen 127.0.0.1:{http};
                 location /moved/ {{ rewrite ^/moved/(.*)$ https://localhost:{https}/$1 redirect; }}
                 location /loop/ {{ return 302 $request_uri; }}
             }}
             server {{
                 listen 127.0.0.1:{https} ssl; {server}
                 location /down/ {{ rewrite ^/down/(.*)$ http://127.0.0.1:{http}/$1 redirect; }}
             }}
             server {{ listen 127.0.0.1:{mutual} ssl; {server} ssl_client_certificate {authority}; ssl_verify_client on; }}
             server {{ listen 127.0.0.1:{old} ssl; {server} ssl_protocols TLSv1.2; }}
             server {{ listen 127.0.0.1:{alone_port} ssl; {alone} }}
             server {{ listen 127.0.0.1:{other_port} ssl; {other} }}
             server {{ listen 127.0.0.1:{expired_port} ssl; {expired} }}
         }}\n"
    )
}
