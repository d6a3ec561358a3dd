//! Certificates of an authority of our own, made by openssl.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An authority and what it has signed. Each is `<name>.pem` with `<name>.key`.
#[derive(Debug)]
pub struct Certificates {
    directory: PathBuf,
}

impl Certificates {
    /// Makes, in this directory, `ca`; signed by it `server` (for "localhost" and 127.0.0.1), `other` (for another name),
    /// `expired` and `client`; and `alone`, which has signed itself.
    pub fn make(directory: &Path) -> Self {
        let made = Self { directory: directory.to_owned() };
        fs::create_dir_all(directory).expect("a directory");
        fs::write(made.path("index"), "").expect("a file");
        fs::write(made.path("serial"), "1000\n").expect("a file");
        fs::write(made.path("ca.conf"), AUTHORITY).expect("a file");
        made.openssl(&format!("req -x509 -days 30 -subj /CN=Test-CA -keyout ca.key -out ca.pem {KEY}"));
        let own = "DNS:localhost,IP:127.0.0.1";
        made.openssl(&format!(
            "req -x509 -days 30 -subj /CN=Test-Alone -keyout alone.key -out alone.pem {KEY} -addext subjectAltName={own} \
             -addext basicConstraints=critical,CA:FALSE"
        ));
        let now = ["", ""];
        made.sign("server", own, now);
        made.sign("other", "DNS:other.example.com", now);
        made.sign("expired", own, ["-startdate 20200101000000Z", "-enddate 20200201000000Z"]);
        made.sign("client", "DNS:device-1", now);
        made
    }

    /// A file of these.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn sign(&self, name: &str, names: &str, dates: [&str; 2]) {
        let extensions = format!("subjectAltName={names}\nbasicConstraints=critical,CA:FALSE\n");
        fs::write(self.path("extensions"), extensions).expect("a file");
        self.openssl(&format!("req -new -subj /CN={name} -keyout {name}.key -out {name}.csr {KEY}"));
        let [start, end] = dates;
        self.openssl(&format!(
            "ca -batch -notext -config ca.conf -in {name}.csr -out {name}.pem -extfile extensions {start} {end}"
        ));
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl").args(arguments.split_whitespace()).current_dir(&self.directory).output();
        let output = output.expect("\"openssl\" (Debian: openssl) can be started");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
const AUTHORITY: &str = "[ca]
default_ca = test
[test]
database = index
serial = serial
new_certs_dir = .
certificate = ca.pem
private_key = ca.key
default_md = sha256
default_days = 30
policy = any
unique_subject = no
[any]
commonName = supplied
";
