//! Tests of the module above: the examples of RFC 7515 and RFC 8037, and what must never pass.

use super::*;

const ALL: [Algorithm; 13] = [
    Algorithm::Hs256,
    Algorithm::Hs384,
    Algorithm::Hs512,
    Algorithm::Rs256,
    Algorithm::Rs384,
    Algorithm::Rs512,
    Algorithm::Ps256,
    Algorithm::Ps384,
    Algorithm::Ps512,
    Algorithm::Es256,
    Algorithm::Es384,
    Algorithm::Es512,
    Algorithm::EdDsa,
];

const CLAIMS: &str =
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const A2_MODULUS: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
const A2_SIGNATURE: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";

fn jwk(text: &str) -> Key {
    Key::jwk(&serde_json::from_str(text).unwrap(), &ALL).unwrap()
}

fn a2_key() -> Key {
    jwk(&format!("{{\"kty\":\"RSA\",\"n\":\"{A2_MODULUS}\",\"e\":\"AQAB\"}}"))
}

#[track_caller]
fn check(key: &Key, token: &str) {
    let signed = Signed::parse(token).unwrap();
    assert!(key.verifies(&signed), "{token}");
    // One bit of what is signed, and one of the signature.
    let (message, signature) = token.rsplit_once('.').unwrap();
    let forged = format!("{message}A.{signature}");
    assert!(!Signed::parse(&forged).is_some_and(|forged| key.verifies(&forged)));
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let forged = format!("{message}.{}", URL_SAFE_NO_PAD.encode(bytes));
    assert!(!key.verifies(&Signed::parse(&forged).unwrap()));
}

#[test]
fn examples_of_rfc_7515_are_good() {
    let key = jwk(
        r#"{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}"#,
    );
    let header = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9";
    check(&key, &format!("{header}.{CLAIMS}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"));

    check(&a2_key(), &format!("eyJhbGciOiJSUzI1NiJ9.{CLAIMS}.{A2_SIGNATURE}"));

    let key = jwk(
        r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#,
    );
    let signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    check(&key, &format!("eyJhbGciOiJFUzI1NiJ9.{CLAIMS}.{signature}"));

    let key = jwk(
        r#"{"kty":"EC","crv":"P-521","x":"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk","y":"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"}"#,
    );
    let signature = "AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn";
    check(&key, &format!("eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.{signature}"));
}

#[test]
fn the_example_of_rfc_8037_is_good() {
    let key = jwk(r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#);
    let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    let token = format!("eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.{signature}");
    check(&key, &token);
    assert_eq!(Signed::parse(&token).unwrap().payload().unwrap(), b"Example of Ed25519 signing");
}

fn parses(header: &str) -> bool {
    Signed::parse(&format!("{}.{CLAIMS}.AAAA", URL_SAFE_NO_PAD.encode(header))).is_some()
}

#[test]
fn what_is_not_signed_is_no_token() {
    // The example of RFC 7515, A.5.
    assert!(Signed::parse(&format!("eyJhbGciOiJub25lIn0.{CLAIMS}.")).is_none());
    for none in ["none", "None", "NONE", "nOnE", "", "HS1", "RS256 ", "rs256"] {
        assert!(!parses(&format!("{{\"alg\":\"{none}\"}}")), "{none}");
    }
    assert!(parses("{\"alg\":\"RS256\"}"));
    assert!(!parses("{\"alg\":\"RS256\",\"alg\":\"HS256\"}"), "twice");
    assert!(!parses("{\"alg\":\"RS256\",\"crit\":[\"exp\"]}"), "an extension that is not understood");
    assert!(!parses("{}") && !parses("[]") && !parses("{\"alg\":[\"RS256\"]}"));
    assert!(!parses(&format!("{{\"alg\":\"RS256\",\"kid\":\"{}\"}}", "k".repeat(257))));
    for broken in
        ["", ".", "..", "a.b", "a.b.c.d.e", "eyJhbGciOiJSUzI1NiJ9.e30", "eyJhbGciOiJSUzI1NiJ9.e30.=="]
    {
        assert!(Signed::parse(broken).is_none(), "{broken}");
    }
}

#[test]
fn a_public_key_is_never_a_secret() {
    // Signed with the text of the public key, which everybody has, as if it were a shared secret.
    let (key, text) = (a2_key(), A2_MODULUS.as_bytes());
    let header = URL_SAFE_NO_PAD.encode("{\"alg\":\"HS256\"}");
    let message = format!("{header}.{CLAIMS}");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, text), message.as_bytes());
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()));
    let signed = Signed::parse(&token).unwrap();
    assert!(!key.serves(signed.algorithm) && !key.verifies(&signed));
    // The same signature is good for whoever really shares that secret.
    assert!(Key::secret(text, None, &ALL).unwrap().verifies(&signed));
}

#[test]
fn a_key_says_what_it_may_be_used_for() {
    let n = A2_MODULUS;
    let raw = |more: &str| {
        serde_json::from_str(&format!("{{\"kty\":\"RSA\",\"n\":\"{n}\",\"e\":\"AQAB\"{more}}}")).unwrap()
    };
    let usable = |more: &str| Key::jwk(&raw(more), &ALL);
    assert!(usable(",\"use\":\"enc\"").is_none());
    assert!(usable(",\"key_ops\":[\"encrypt\"]").is_none());
    assert!(usable(",\"alg\":\"RSA-OAEP\"").is_none());
    let only = usable(",\"alg\":\"PS256\",\"use\":\"sig\",\"key_ops\":[\"verify\"]").unwrap();
    assert!(only.serves(Algorithm::Ps256) && !only.serves(Algorithm::Rs256));
    let short: RawJwk = serde_json::from_str(&format!(
        "{{\"kty\":\"RSA\",\"n\":\"{}\",\"e\":\"AQAB\"}}",
        URL_SAFE_NO_PAD.encode([0xab; 128])
    ))
    .unwrap();
    assert!(Key::jwk(&short, &ALL).is_none(), "1024 bits");
    assert!(Key::secret(b"too short", None, &ALL).is_err());
    assert!(Key::secret(&[7; 32], None, &[Algorithm::Rs256]).is_err());
}
