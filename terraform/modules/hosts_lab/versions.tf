terraform {
  required_version = ">= 1.9"
  required_providers {
    lab = {
      source = "terraform.local/mobula/lab"
    }
  }
}
