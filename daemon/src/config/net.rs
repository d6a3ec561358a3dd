//! Options and variables about servers: sources of Artifacts, certificates, proxies.

use reqwest::Url;

use super::file::Value;
use super::{ArtifactSources, ConfigError, Environment, HttpsClient, Options, Proxies};

/// Hosts of this machine, which are never behind a proxy.
const OWN_HOSTS: &str = "localhost,127.0.0.0/8,::1";

impl Options<'_> {
    /// Where Artifacts are looked for by name.
    pub(super) fn artifact_sources(&self, warnings: &mut Vec<String>) -> Result<ArtifactSources, ConfigError> {
        let server = self.get("ArtifactSources.ServerUrl");
        let server_url = server.as_ref().map(|value| address(value, "https://hosted.example.com")).transpose()?;
        let token_file = self.path("ArtifactSources.TokenFile")?;
        if let (None, Some(_), Some(value)) = (&server_url, &token_file, self.get("ArtifactSources.TokenFile")) {
            return Err(value.invalid("is of no use without \"ArtifactSources.ServerUrl\""));
        }
        if let (Some(url), Some(value)) = (&server_url, &server)
            && is_open_to_listeners(url)
        {
            warnings.push(value.remark("is not https: everybody on the way can read the device's token."));
        }
        Ok(ArtifactSources {
            directory: self.path("ArtifactSources.Directory")?,
            url: self
                .get("ArtifactSources.Url")
                .map(|value| address(&value, "https://server.example.com/artifacts"))
                .transpose()?,
            server_url,
            token_file,
        })
    }

    /// The Mender client has the same option with the same range and default.
    pub(super) fn download_retries(&self) -> Result<u32, ConfigError> {
        let number = self.get("RetryDownloadCount").map_or(Ok(10), |value| value.integer(1..=10_000))?;
        Ok(u32::try_from(number).unwrap_or(u32::MAX))
    }

    pub(super) fn https_client(&self) -> Result<HttpsClient, ConfigError> {
        if let Some(value) = self.get("HttpsClient.SSLEngine") {
            let text = "names an engine of OpenSSL; TLS here is not that of OpenSSL, and keys in security modules are not \
                        supported. Remove it, and give a PEM file in \"HttpsClient.Key\"";
            value.string()?;
            return Err(value.invalid(text));
        }
        if let Some(value) = self.get("HttpsClient.Key")
            && value.string()?.starts_with("pkcs11:")
        {
            let text = "is a PKCS#11 URI; keys in security modules are not supported, only PEM files";
            return Err(value.invalid(text));
        }
        let client =
            HttpsClient { certificate: self.path("HttpsClient.Certificate")?, key: self.path("HttpsClient.Key")? };
        let lacks = |present: &str, absent: &str| {
            self.get(present).map(|value| value.invalid(format!("is of no use without \"{absent}\"")))
        };
        let defect = match (&client.certificate, &client.key) {
            (Some(_), None) => lacks("HttpsClient.Certificate", "HttpsClient.Key"),
            (None, Some(_)) => lacks("HttpsClient.Key", "HttpsClient.Certificate"),
            _ => None,
        };
        defect.map_or(Ok(client), Err)
    }
}

/// The address of a server. What may be a secret does not belong into a file that everybody may read, nor into logs.
fn address(value: &Value<'_>, example: &str) -> Result<String, ConfigError> {
    let text = value.string()?;
    let wrong = || value.invalid(format!("must be an address such as {example}"));
    let url = Url::parse(&text).ok().filter(is_http).ok_or_else(wrong)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(value.invalid("must not hold a user name or password"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(value.invalid("must not have a query (?...) or fragment (#...)"));
    }
    Ok(text)
}

fn is_http(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.has_host()
}

fn is_open_to_listeners(text: &str) -> bool {
    let own = |url: &Url| matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    Url::parse(text).is_ok_and(|url| url.scheme() == "http" && !own(&url))
}

/// The proxies of the environment, as the Mender client and curl know them: in capitals or not. Both at once must agree.
pub(super) fn proxies(environment: Environment<'_>) -> Result<Proxies, ConfigError> {
    let read = |capitals: &'static str, small: &str| -> Result<Option<String>, ConfigError> {
        let read = |name: &str| environment(name).filter(|value| !value.trim().is_empty());
        match (read(capitals), read(small)) {
            (Some(one), Some(other)) if one != other => {
                let reason = format!("and \"{small}\" are set, to different values");
                Err(ConfigError::Proxy { variable: capitals, reason })
            }
            (one, other) => Ok(one.or(other)),
        }
    };
    let proxy = |capitals: &'static str, small: &str| -> Result<Option<String>, ConfigError> {
        let Some(text) = read(capitals, small)? else { return Ok(None) };
        let text = text.trim();
        // The form without a scheme is usual.
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        if Url::parse(&text).is_ok_and(|url| is_http(&url)) {
            return Ok(Some(text));
        }
        let reason = "is no address of a proxy, such as http://proxy.example.com:3128".to_owned();
        Err(ConfigError::Proxy { variable: capitals, reason })
    };
    let except = read("NO_PROXY", "no_proxy")?.unwrap_or_default();
    // The Mender client separates them by blanks, everybody else by commas.
    let hosts = except.split([',', ' ', '\t']).filter(|host| !host.is_empty());
    let except = hosts.chain([OWN_HOSTS]).collect::<Vec<_>>().join(",");
    Ok(Proxies { http: proxy("HTTP_PROXY", "http_proxy")?, https: proxy("HTTPS_PROXY", "https_proxy")?, except })
}
