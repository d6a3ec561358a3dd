//! A directory of Artifacts on an HTTP server: `<base>/<name>.mender`.

use std::sync::Arc;

use reqwest::Url;
use tokio_util::sync::CancellationToken;

use super::http::{Connector, Download, Http, Origin, shown};
use super::location::Location;
use super::{Offer, Source, Wanted, header_of, quoted};
use crate::core::error::{Error, Kind};

/// Files on HTTP servers.
#[derive(Debug)]
pub(super) struct Web {
    connector: Arc<Connector>,
    base: Url,
}

impl Web {
    pub(super) fn new(connector: Arc<Connector>, base: &str) -> Result<Self, Error> {
        Ok(Self { connector, base: parse(base)? })
    }

    fn address(&self, name: &str) -> Result<Url, Error> {
        let mut url = self.base.clone();
        match url.path_segments_mut() {
            // A slash in the name becomes %2F: it cannot lead out of the directory.
            Ok(mut segments) => {
                segments.pop_if_empty().push(&format!("{name}.mender"));
            }
            Err(()) => return Err(malformed(self.base.as_str(), "it has no path")),
        }
        Ok(url)
    }
}

impl Source for Web {
    fn find(&self, wanted: &Wanted<'_>) -> Result<Vec<Offer>, Error> {
        let url = self.address(wanted.name)?;
        let opened = open(&self.connector, url.as_str(), None, wanted.retries, wanted.stop);
        let download = match opened {
            Ok(download) => download,
            Err(error) if error.kind == Kind::NoSuitableArtifact => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let size = download.size();
        // The connection is closed when the header has come.
        let header = header_of(Box::new(download), wanted.keys, &shown(&url))?;
        Ok(vec![Offer::of_header(Location::Url { url: url.into() }, &header, size)])
    }

    fn name(&self) -> String {
        format!("the server {}", quoted(&shown(&self.base)))
    }
}

/// Opens a file on a server. `size` is the one that it has to have.
pub(super) fn open(
    connector: &Connector,
    address: &str,
    size: Option<u64>,
    retries: u32,
    stop: &CancellationToken,
) -> Result<Download, Error> {
    Download::open(connector.client()?, Box::new(Fixed(parse(address)?)), size, retries, stop)
}

fn parse(address: &str) -> Result<Url, Error> {
    Url::parse(address).map_err(|error| malformed(address, &error.to_string()))
}

fn malformed(address: &str, reason: &str) -> Error {
    Error::new(Kind::InvalidConfiguration, format!("The address {} is malformed: {reason}.", quoted(address)))
}

/// An address that stays.
#[derive(Debug)]
struct Fixed(Url);

impl Origin for Fixed {
    fn address(&mut self, _: &Http, expired: bool, _: &CancellationToken) -> Result<Option<Url>, Error> {
        Ok((!expired).then(|| self.0.clone()))
    }

    fn shown(&self) -> String {
        shown(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::settings::Settings;

    #[test]
    fn a_name_becomes_the_last_part_of_the_path() {
        let (settings, _) =
            Settings::load(&|variable| variable.ends_with("_DIR").then(|| "/nonexistent".to_owned())).unwrap();
        let connector = Arc::new(Connector::new(&settings));
        for (base, name, expected) in [
            ("https://h/artifacts", "rtos-2", "https://h/artifacts/rtos-2.mender"),
            ("https://h/artifacts/", "rtos-2", "https://h/artifacts/rtos-2.mender"),
            ("http://h:81", "release 2", "http://h:81/release%202.mender"),
            ("http://h/a", "../b?c#d", "http://h/a/..%2Fb%3Fc%23d.mender"),
        ] {
            let web = Web::new(connector.clone(), base).unwrap();
            assert_eq!(web.address(name).unwrap().as_str(), expected);
        }
    }
}
