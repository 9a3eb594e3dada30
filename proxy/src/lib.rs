//! segue-proxy
