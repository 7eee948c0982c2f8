//! An Image Factory, as `image-factory/docs/api.md` describes it and as its frontend behaves: a length always,
//! no ranges and no ETag, schematics known by the SHA-256 of their YAML. And its bad days.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sha2::{Digest, Sha256};

/// What it has, and how it behaves.
#[derive(Clone, Debug, Default)]
pub struct Offers {
    /// By name, as `kernel-amd64`, of every schematic and version.
    pub files: HashMap<String, Arc<Vec<u8>>>,
    /// The releases, in any order.
    pub versions: Vec<String>,
    /// The extensions of every release.
    pub extensions: Vec<String>,
    /// Whether what is asked for may be a part, with a strong ETag.
    pub has_ranges: bool,
    /// What is named as the id of every schematic, where it is not the expected one.
    pub other_id: Option<String>,
    /// Where images really are: GET is led there.
    pub store: Option<String>,
}

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Another status, with these headers and this text.
    Status(u16, &'static str, &'static str),
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// So many bytes come at a time, and then a pause.
    Slow(usize, Duration),
    /// After so many bytes only a few come now and then, until the factory is mended.
    Hold(usize),
    /// The length that is told is another one, in HEAD and GET.
    Length(u64),
    /// Only so much of it is there for GET, which tells that length; HEAD tells all of it.
    Short(usize),
    /// It is led elsewhere.
    Redirect(String),
}

/// A request, as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// A running factory. It ends with the program.
#[derive(Clone, Debug)]
pub struct Factory {
    /// Where it is, as `http://127.0.0.1:4711`.
    pub url: String,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    offers: Offers,
    /// Of requests whose path has this in it, so many more.
    faults: Vec<(String, Fault, usize)>,
    asked: Vec<Asked>,
    is_gone: bool,
}

/// A CA of its own, and a server's certificate by it.
pub struct Tls {
    /// The CA's certificate.
    pub ca: String,
    config: Arc<ServerConfig>,
}

impl Tls {
    /// For a server at this address.
    pub fn new(address: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("a factory of the tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a factory of the tests");
        let ca = params.self_signed(&key).expect("a factory of the tests");
        let issuer = Issuer::new(params, key);
        let own_key = KeyPair::generate().expect("a factory of the tests");
        let own = CertificateParams::new(vec![address.to_owned()]).expect("a factory of the tests");
        let own = own.signed_by(&own_key, &issuer).expect("a factory of the tests");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own_key.serialize_der()));
        let chain = vec![CertificateDer::from(own.der().to_vec())];
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("a factory of the tests")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a factory of the tests");
        Self { ca: ca.pem(), config: Arc::new(config) }
    }
}

impl Factory {
    /// One on loopback.
    pub fn start(offers: Offers) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a factory of the tests"), offers, None)
    }

    /// One on a listener, behind TLS where that is given.
    pub fn on(listener: TcpListener, offers: Offers, tls: Option<&Tls>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().expect("a factory of the tests"));
        let shared = Arc::new(Mutex::new(Shared { offers, ..Shared::default() }));
        let (state, config) = (Arc::clone(&shared), tls.map(|tls| Arc::clone(&tls.config)));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (state, config) = (Arc::clone(&state), config.clone());
                // A client that goes away is no fault of the test.
                thread::spawn(move || serve(stream, config, &state).ok());
            }
        });
        Self { url, shared }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets something go wrong with the next requests, so many, whose path has this in it.
    pub fn fault(&self, path: &str, fault: Fault, times: usize) {
        self.shared().faults.push((path.to_owned(), fault, times));
    }

    /// All is well again.
    pub fn mend(&self) {
        self.shared().faults.clear();
    }

    /// Changes what it has.
    pub fn change(&self, change: impl FnOnce(&mut Offers)) {
        change(&mut self.shared().offers);
    }

    /// From now on it closes every connection at once.
    pub fn go_away(&self) {
        self.shared().is_gone = true;
    }

    /// What was asked.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared().asked.clone()
    }

    /// The paths of what was asked by this method.
    pub fn paths(&self, method: &str) -> Vec<String> {
        let asked = self.asked().into_iter().filter(|asked| asked.method == method);
        asked.map(|asked| asked.path).collect()
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn serve(
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    shared: &Mutex<Shared>,
) -> io::Result<()> {
    let is_gone = shared.lock().unwrap_or_else(PoisonError::into_inner).is_gone;
    if is_gone {
        return Ok(());
    }
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let socket = stream.try_clone()?;
    let stream: Box<dyn Stream> = match tls {
        Some(config) => {
            let connection = ServerConnection::new(config).map_err(io::Error::other)?;
            Box::new(StreamOwned::new(connection, stream))
        }
        None => Box::new(stream),
    };
    let mut reader = BufReader::new(stream);
    let asked = read(&mut reader)?;
    let (offers, fault) = {
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.asked.push(asked.clone());
        let fault = shared
            .faults
            .iter_mut()
            .find(|(path, _, times)| asked.path.contains(path.as_str()) && *times > 0);
        let fault = fault.map(|(_, fault, times)| {
            // The length that is told is the same in HEAD and GET.
            if asked.method != "HEAD" {
                *times -= 1;
            }
            fault.clone()
        });
        (shared.offers.clone(), fault)
    };
    let mut answer = answer(&asked, &offers);
    let body = std::mem::take(&mut answer.body);
    let mut length = body.len() as u64;
    match &fault {
        Some(Fault::Status(status, headers, text)) => {
            let head = format!(
                "HTTP/1.1 {status} Fault\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n",
                text.len()
            );
            let text = if asked.method == "HEAD" { "" } else { text };
            return write(reader.get_mut(), &[head.as_bytes(), text.as_bytes()]);
        }
        Some(Fault::Redirect(to)) => {
            let head = format!(
                "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            return write(reader.get_mut(), &[head.as_bytes()]);
        }
        Some(Fault::Length(told)) => length = *told,
        Some(Fault::Short(len)) if asked.method != "HEAD" => length = *len as u64,
        Some(Fault::Short(_)) => {}
        Some(Fault::Cut(_) | Fault::Slow(..) | Fault::Hold(_)) | None => {}
    }
    let head = format!(
        "HTTP/1.1 {} X\r\nContent-Length: {length}\r\nConnection: close\r\n{}\r\n",
        answer.status, answer.headers
    );
    write(reader.get_mut(), &[head.as_bytes()])?;
    if asked.method == "HEAD" {
        return Ok(());
    }
    let told = usize::try_from(length).unwrap_or(usize::MAX).min(body.len());
    match fault {
        Some(Fault::Cut(after)) => {
            write(reader.get_mut(), &[&body[..after.min(body.len())]])?;
            socket.shutdown(std::net::Shutdown::Both)
        }
        Some(Fault::Hold(after)) => {
            let (first, mut rest) = body.split_at(after.min(body.len()));
            write(reader.get_mut(), &[first])?;
            let is_mended =
                || shared.lock().unwrap_or_else(PoisonError::into_inner).faults.is_empty();
            while !is_mended() {
                let (few, more) = rest.split_at(rest.len().min(100));
                write(reader.get_mut(), &[few])?;
                rest = more;
                thread::sleep(Duration::from_millis(200));
            }
            write(reader.get_mut(), &[rest])
        }
        Some(Fault::Slow(chunk, pause)) => {
            for chunk in body.chunks(chunk) {
                write(reader.get_mut(), &[chunk])?;
                thread::sleep(pause);
            }
            Ok(())
        }
        Some(Fault::Status(..) | Fault::Redirect(_) | Fault::Length(_) | Fault::Short(_))
        | None => write(reader.get_mut(), &[&body[..told]]),
    }
}

fn write(stream: &mut Box<dyn Stream>, parts: &[&[u8]]) -> io::Result<()> {
    for part in parts {
        stream.write_all(part)?;
    }
    stream.flush()
}

fn read(reader: &mut BufReader<Box<dyn Stream>>) -> io::Result<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (method, path) = (method.to_owned(), path.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Asked { method, path, headers, body: String::from_utf8_lossy(&body).into_owned() })
}

struct Answer {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

fn plain(status: u16, text: impl Into<Vec<u8>>) -> Answer {
    Answer { status, headers: String::new(), body: text.into() }
}

fn listed(names: impl Iterator<Item = String>) -> Answer {
    plain(200, format!("[{}]", names.collect::<Vec<_>>().join(",")))
}

fn answer(asked: &Asked, offers: &Offers) -> Answer {
    let path: Vec<&str> = asked.path.trim_matches('/').split('/').collect();
    match (asked.method.as_str(), path.as_slice()) {
        ("POST", ["schematics"]) => {
            if !asked.body.contains("customization:") {
                return plain(400, "yaml: unknown fields\n");
            }
            let sum = Sha256::digest(asked.body.as_bytes());
            let id: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
            let id = offers.other_id.as_ref().unwrap_or(&id);
            plain(201, format!("{{\"id\":\"{id}\"}}"))
        }
        ("GET", ["versions"]) => listed(offers.versions.iter().map(|v| format!("\"{v}\""))),
        ("GET", ["version", _, "extensions", "official"]) => listed(
            offers
                .extensions
                .iter()
                .map(|name| format!("{{\"name\":\"{name}\",\"ref\":\"x\",\"digest\":\"y\"}}")),
        ),
        ("GET" | "HEAD", [first @ .., "image", _, version, file]) => {
            let version = version.trim_start_matches('v');
            if !offers.versions.iter().any(|known| known.trim_start_matches('v') == version) {
                return plain(404, "no such version\n");
            }
            if file.ends_with(".sha256") {
                return plain(402, "payment required\n");
            }
            let Some(content) = offers.files.get(*file) else {
                return plain(404, "no such file\n");
            };
            match &offers.store {
                Some(store) if asked.method == "GET" && first.is_empty() => Answer {
                    status: 302,
                    headers: format!("Location: {store}{}\r\n", asked.path),
                    body: Vec::new(),
                },
                Some(_) | None => part(asked, content, offers.has_ranges),
            }
        }
        _ => plain(404, "not found\n"),
    }
}

fn part(asked: &Asked, content: &[u8], has_ranges: bool) -> Answer {
    if !has_ranges {
        return plain(200, content);
    }
    let etag = format!("\"{}\"", content.len());
    let headers = format!("ETag: {etag}\r\nAccept-Ranges: bytes\r\n");
    let is_same = asked.headers.get("if-range").is_none_or(|known| *known == etag);
    let from = asked.headers.get("range").and_then(|range| {
        let from = range.strip_prefix("bytes=")?.strip_suffix('-')?;
        from.parse::<usize>().ok()
    });
    match from.filter(|from| is_same && *from < content.len()) {
        Some(from) => {
            let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
            let headers = format!("{headers}Content-Range: {range}\r\n");
            Answer { status: 206, headers, body: content[from..].to_vec() }
        }
        None => Answer { status: 200, headers, body: content.to_vec() },
    }
}
