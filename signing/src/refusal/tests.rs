use super::*;

#[test]
fn every_refusal_is_listed_once_with_a_word_of_its_own() {
    let words: std::collections::HashSet<_> = Refusal::ALL.iter().map(Refusal::reason).collect();
    assert_eq!(words.len(), Refusal::ALL.len());
    for refusal in Refusal::ALL {
        let word = refusal.reason();
        assert!(word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{word}");
        assert_eq!(refusal.to_string(), refusal.message());
        assert!(matches!(refusal.status(), 400 | 401 | 403), "{word}");
    }
}

#[test]
fn a_fresh_ticket_helps_against_401_and_not_against_403() {
    for refusal in [Refusal::TicketMissing, Refusal::Expired, Refusal::SignatureInvalid, Refusal::KeyRetired] {
        assert_eq!(refusal.status(), 401);
    }
    for refusal in [Refusal::OutOfScope, Refusal::AddressMismatch, Refusal::Revoked] {
        assert_eq!(refusal.status(), 403);
    }
}
