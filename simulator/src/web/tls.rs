//! TLS by rustls: the server's self-signed identity, and a client that checks signatures but no
//! authority (see the module's documentation).

use std::ops::RangeInclusive;
use std::sync::Arc;

use anyhow::{Context, ensure};
use hyper::service::service_fn;
use hyper::{StatusCode, client, server};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

use super::client::Visit;
use super::http::{self, Connection, bytes_target, check, content_of, drive, get_request};
use super::kind::Service;
use super::server::Shared;

/// The name in the certificate and in the client's SNI.
pub(super) const SERVER_NAME: &str = "www.example.test";

/// HTTP/1.1 in the ALPN extension.
pub(super) const ALPN_HTTP1: &[u8] = b"http/1.1";
/// HTTP/2 in the ALPN extension.
pub(super) const ALPN_HTTP2: &[u8] = b"h2";

/// Octets of a download over HTTP/1.1.
pub(super) const HTTP1_SIZES: RangeInclusive<u64> = 1_024..=128 * 1024;
/// Octets of each download over HTTP/2.
pub(super) const HTTP2_SIZES: RangeInclusive<u64> = 1_024..=64 * 1024;

/// A certificate that vouches for itself, and its key.
pub(super) struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl Identity {
    /// Makes a new one.
    pub(super) fn generate() -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed([SERVER_NAME.to_owned()])
            .context("cannot make a certificate")?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        Ok(Self {
            certificate: made.cert.der().clone(),
            key,
        })
    }

    /// A server's side with this identity.
    pub(super) fn server_config(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&[u8]],
    ) -> anyhow::Result<ServerConfig> {
        let key = PrivateKeyDer::Pkcs8(self.key.clone_key());
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key)?;
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(config)
    }
}

/// The web server's side: both versions of TLS and of HTTP, as the client prefers.
pub(super) fn server_config(identity: &Identity) -> anyhow::Result<Arc<ServerConfig>> {
    let config = identity.server_config(&[&TLS13, &TLS12], &[ALPN_HTTP2, ALPN_HTTP1])?;
    Ok(Arc::new(config))
}

/// A client's side that trusts any certificate.
pub(super) fn client_config(
    version: &'static SupportedProtocolVersion,
    alpn: &[u8],
) -> anyhow::Result<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyAuthority(provider())))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Accepts every certificate whose owner signs the handshake with it.
#[derive(Debug)]
struct AnyAuthority(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyAuthority {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The client's sides, one per kind of request.
pub(super) struct Clients {
    http1: TlsConnector,
    http2: TlsConnector,
}

impl Clients {
    /// TLS 1.2 for HTTP/1.1, TLS 1.3 for HTTP/2: both shapes of hello and handshake take part.
    pub(super) fn new() -> anyhow::Result<Self> {
        let connector = |version, alpn| {
            client_config(version, alpn).map(|config| TlsConnector::from(Arc::new(config)))
        };
        Ok(Self {
            http1: connector(&TLS12, ALPN_HTTP1)?,
            http2: connector(&TLS13, ALPN_HTTP2)?,
        })
    }

    /// A TLS stream for HTTP/1.1.
    pub(super) async fn connect_http1<S>(&self, stream: S) -> anyhow::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        connect(&self.http1, stream, ALPN_HTTP1).await
    }
}

async fn connect<S>(
    connector: &TlsConnector,
    stream: S,
    alpn: &[u8],
) -> anyhow::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from(SERVER_NAME).expect("the name is a host name");
    let stream = connector
        .connect(name, stream)
        .await
        .context("no TLS handshake")?;
    let chosen = stream.get_ref().1.alpn_protocol();
    ensure!(
        chosen == Some(alpn),
        "the server did not choose {}",
        String::from_utf8_lossy(alpn)
    );
    Ok(stream)
}

/// Answers one connection in the version of HTTP that the client chose.
pub(super) async fn answer<S>(stream: S, shared: Arc<Shared>) -> anyhow::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let acceptor = TlsAcceptor::from(Arc::clone(&shared.tls));
    let stream = acceptor.accept(stream).await.context("no TLS handshake")?;
    if stream.get_ref().1.alpn_protocol() != Some(ALPN_HTTP2) {
        return http::serve_http1(stream, shared).await;
    }
    let service = service_fn(move |request| http::respond(request, Arc::clone(&shared)));
    let builder = server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .serve_connection(TokioIo::new(stream), service)
        .await
        .context("HTTP/2")
}

/// One download over HTTP/1.1.
pub(super) async fn http1(visit: &mut Visit) -> anyhow::Result<()> {
    let target = bytes_target(&mut visit.rng, HTTP1_SIZES);
    let stream = visit.tcp(Service::Tls).await?;
    let stream = visit.site().tls.connect_http1(stream).await?;
    Connection::open(stream).await?.get(&target).await
}

/// Three downloads over HTTP/2, asked for together.
pub(super) async fn http2(visit: &mut Visit) -> anyhow::Result<()> {
    let targets: [String; 3] = std::array::from_fn(|_| bytes_target(&mut visit.rng, HTTP2_SIZES));
    let stream = visit.tcp(Service::Tls).await?;
    let stream = connect(&visit.site().tls.http2, stream, ALPN_HTTP2).await?;
    let handshake = client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await?;
    let _driver = drive(connection);
    let mut responses = Vec::new();
    for target in &targets {
        let mut request = get_request(target)?;
        // HTTP/2 says scheme and authority with each request.
        *request.uri_mut() = format!("https://{SERVER_NAME}{target}").parse()?;
        sender.ready().await?;
        responses.push(sender.send_request(request));
    }
    for (response, target) in responses.into_iter().zip(&targets) {
        check(
            response.await.context("no response")?,
            StatusCode::OK,
            content_of(target),
        )
        .await?;
    }
    Ok(())
}
