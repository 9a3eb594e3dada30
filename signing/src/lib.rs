//! segue-signing
