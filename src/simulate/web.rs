//! The HTTP client of firmware and of iPXE.

use std::time::Duration;

use reqwest::{Client, Response, StatusCode, header, redirect};

use super::script;
use crate::http_client::cause;
use crate::pure::boot::urls::SIMULATION;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A whole NBP has about a megabyte.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How much is fetched of a kernel or an initrd, and kept of anything: what tells them is in it.
pub const HEAD: usize = 1 << 16;
/// How long a script may be. Anything longer is none.
const LONGEST_SCRIPT: usize = 1 << 20;

/// Who fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agent {
    /// UEFI HTTP Boot.
    Uefi,
    /// iPXE.
    Ipxe,
}

/// How much is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Much {
    /// Everything; its head is kept.
    All,
    /// The head alone.
    Head,
    /// Everything, if it is no longer than a script is, and all of it is kept.
    Script,
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    /// How many bytes the file has, as far as the server says.
    pub of: Option<u64>,
    /// How many came.
    pub bytes: u64,
    /// Those that were kept.
    pub kept: Vec<u8>,
}

/// The client.
#[derive(Clone, Debug)]
pub struct Web(Client);

impl Web {
    /// Makes one. It goes straight to the server, as firmware does.
    ///
    /// # Errors
    /// What the library reports.
    pub fn new() -> Result<Self, String> {
        // It fails where the process has one already, which is as good.
        rustls::crypto::ring::default_provider().install_default().ok();
        let builder = || {
            Client::builder()
                .no_proxy()
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(TIMEOUT)
                .redirect(redirect::Policy::limited(5))
        };
        // A host without CA certificates can do all that reveille itself asks for.
        let client = builder().build().or_else(|_| builder().tls_certs_only([]).build());
        client.map(Self).map_err(cause)
    }

    /// Fetches.
    ///
    /// # Errors
    /// What the server answers instead, or why nothing comes.
    pub async fn get(&self, url: &str, agent: Agent, much: Much) -> Result<Got, String> {
        let name = match agent {
            Agent::Uefi => format!("UefiHttpBoot/1.0 {SIMULATION}"),
            Agent::Ipxe => format!("iPXE/{} {SIMULATION}", script::VERSION),
        };
        let mut request = self.0.get(url).header(header::USER_AGENT, name);
        if much == Much::Head {
            request = request.header(header::RANGE, format!("bytes=0-{}", HEAD - 1));
        }
        let mut response = request.send().await.map_err(cause)?;
        let status = response.status();
        let of = length(&response);
        let most = if much == Much::Script { LONGEST_SCRIPT } else { HEAD };
        let mut got = Got { of, bytes: 0, kept: Vec::new() };
        while let Some(chunk) = response.chunk().await.map_err(cause)? {
            let room = most.saturating_sub(got.kept.len()).min(chunk.len());
            got.kept.extend(&chunk[..room]);
            got.bytes += chunk.len() as u64;
            if much != Much::All && got.kept.len() == most {
                break;
            }
        }
        if !status.is_success() {
            let text = String::from_utf8_lossy(&got.kept);
            let first = text.lines().next().unwrap_or_default().chars().take(200);
            let first = Some(first.collect::<String>()).filter(|text| !text.is_empty());
            let first = first.map_or_else(String::new, |text| format!(": `{text}`"));
            return Err(format!("the server answers {status}{first}"));
        }
        Ok(got)
    }
}

/// How long the whole file is: in an answer with a part of it, Content-Range says so (RFC 9110 section
/// 14.4).
fn length(response: &Response) -> Option<u64> {
    if response.status() == StatusCode::PARTIAL_CONTENT {
        let range = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
        return range.rsplit_once('/')?.1.parse().ok();
    }
    response.content_length()
}
